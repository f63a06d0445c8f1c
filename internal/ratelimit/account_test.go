package ratelimit_test

import (
	"testing"
	"time"

	"github.com/shoal-go/torrent/internal/ratelimit"
	"github.com/stretchr/testify/require"
)

func TestAccount(t *testing.T) {
	now := time.Unix(1, 0)
	a := ratelimit.NewAccount(100, 1000, now)
	require.Zero(t, a.Charge(1000, now), "all of it at once")
	require.Equal(t, time.Second, a.Charge(100, now), "then what is owed takes its time")
	now = now.Add(time.Second)
	require.Zero(t, a.Charge(0, now))
	require.Equal(t, 500*time.Millisecond, a.Charge(50, now))
	a.Earn(50)
	require.Zero(t, a.Charge(0, now), "or is earned")
	a.Earn(1 << 40)
	now = now.Add(time.Hour)
	require.Zero(t, a.Charge(1000, now))
	require.Zero(t, a.Owed(now))
	require.NotZero(t, a.Charge(1, now), "no more is saved than the most")
	require.EqualValues(t, 1, a.Owed(now))
	a.Charge(99, now)
	require.EqualValues(t, 50, a.Owed(now.Add(500*time.Millisecond)))
	require.Zero(t, a.Owed(now.Add(time.Minute)))
}
