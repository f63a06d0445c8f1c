package outbox

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/wire"
)

// A request that is taken back before it was written is never sent, nor is its cancel.
func TestRequestsTakenBack(t *testing.T) {
	o := New()
	first, second := Request{1, 0, 16384}, Request{2, 16384, 100}
	require.True(t, o.Request([]Request{first, second}))
	require.True(t, o.Add(func(b []byte) []byte { return wire.AppendSimple(b, wire.Interested) }))
	require.True(t, o.Withdraw(func(r Request) bool { return r == first }))

	messages, _ := o.Take(nil, 1, nil)
	want := wire.AppendRequest(wire.AppendSimple(nil, wire.Interested), 2, 16384, 100)
	require.Equal(t, want, messages, "what was said goes before what was asked")
	require.False(t, o.Withdraw(func(r Request) bool { return r == second }), "it has gone out, so it takes a cancel")

	messages, _ = o.Take(nil, 1, nil)
	require.Empty(t, messages)
}

func TestBounds(t *testing.T) {
	o := New()
	require.True(t, o.Request(make([]Request, maxBytes/requestSize)))
	require.False(t, o.Request(make([]Request, 2)))
}
