package expiring_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/expiring"
)

func TestMap(t *testing.T) {
	var m expiring.Map[string, int]
	_, ok := m.Get("a")
	require.False(t, ok)
	now := 0
	put := func(key string, until int) bool {
		return m.Put(key, until, 2, func(until int) bool { return until <= now })
	}
	require.True(t, put("a", 1))
	require.True(t, put("b", 2))
	require.False(t, put("c", 3), "it is full")
	got, ok := m.Get("a")
	require.True(t, ok)
	require.Equal(t, 1, got)
	require.Equal(t, 2, m.Len())
}

// Those that are over make room, when there are many.
func TestMapForgets(t *testing.T) {
	var m expiring.Map[int, int]
	for now := range 10_000 {
		require.True(t, m.Put(now, now+100, 1000, func(until int) bool { return until <= now }))
		require.LessOrEqual(t, m.Len(), 200)
	}
	_, ok := m.Get(9_900)
	require.True(t, ok)
	_, ok = m.Get(9_000)
	require.False(t, ok)
}
