package torrent

import (
	"testing"

	"github.com/shoal-go/torrent/internal/wire"
	"github.com/stretchr/testify/require"
)

// What we asked for and do not want any more before the writer came to it, the peer never hears of.
func TestOutboxRequestsTakenBack(t *testing.T) {
	o := newOutbox()
	first, second := request{1, 0, blockSize}, request{2, blockSize, 100}
	require.True(t, o.request([]request{first, second}))
	require.True(t, o.add(func(b []byte) []byte { return wire.AppendSimple(b, wire.Interested) }))
	require.True(t, o.withdraw(func(r request) bool { return r == first }))

	messages, _ := o.take(nil, 1, nil)
	want := wire.AppendRequest(wire.AppendSimple(nil, wire.Interested), 2, blockSize, 100)
	require.Equal(t, want, messages, "what was said goes before what was asked")
	require.False(t, o.withdraw(func(r request) bool { return r == second }), "it has gone out, so it takes a cancel")

	messages, _ = o.take(nil, 1, nil)
	require.Empty(t, messages)
}

func TestOutboxIsBounded(t *testing.T) {
	o := newOutbox()
	require.True(t, o.request(make([]request, maxOutbox/requestSize)))
	require.False(t, o.request(make([]request, 2)))
}
