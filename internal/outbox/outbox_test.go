package outbox

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/wire"
)

// A request that is taken back before it was written is never sent, nor is its cancel.
func TestRequestsTakenBack(t *testing.T) {
	o := New(new(Account))
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
	o := New(new(Account))
	require.True(t, o.Request(make([]Request, maxBytes/requestSize)))
	require.False(t, o.Request(make([]Request, 2)))
}

// All outboxes of a client share a bound. One that holds little always fits; what is taken counts until it was written.
func TestAccountOfAll(t *testing.T) {
	a := new(Account)
	big := func(b []byte) []byte { return append(b, make([]byte, 3<<20)...) }
	var all []Outbox
	dropped := 0
	for range 80 {
		all = append(all, New(a))
	}
	for k := range all {
		if !all[k].Add(big) {
			all[k].Close()
			dropped++
		}
		all[k].Take(nil, 1, nil)
		require.LessOrEqual(t, a.held.Load(), int64(accountLimit))
	}
	require.Equal(t, 80-11, dropped, "of 240 MiB, 32")
	require.True(t, all[79].Add(func(b []byte) []byte { return wire.AppendSimple(b, wire.Interested) }), "a little always fits")
	for k := range all {
		all[k].Take(make([]byte, 0, 1<<20), 1, nil) // the writer is back for more
	}
	require.Zero(t, a.held.Load())
}
