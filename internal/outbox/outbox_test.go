package outbox

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/account"
	"github.com/shoal-go/torrent/internal/wire"
)

// join is a peer in an account, of whose giving way nothing follows.
func join(a *account.Account) *account.Holder { return a.Join(func() {}) }

// A request that is taken back before it was written is never sent, nor is its cancel.
func TestRequestsTakenBack(t *testing.T) {
	o := New(join(account.New(0)))
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
	o := New(join(account.New(0)))
	require.True(t, o.Request(make([]Request, maxBytes/requestSize)))
	require.False(t, o.Request(make([]Request, 2)))
}

// All outboxes of a client share a bound, with all else that peers make us hold. What is taken counts until it was written.
func TestAccountOfAll(t *testing.T) {
	a := account.New(0)
	held := func() int64 {
		n, limit := a.Held()
		require.LessOrEqual(t, n, limit)
		return n
	}
	big := func(b []byte) []byte { return append(b, make([]byte, 3<<20)...) }
	all := make([]Outbox, 80)
	gone := 0
	for k := range all {
		all[k] = New(a.Join(func() { gone++ }))
		if !all[k].Add(big) {
			gone++
		}
		all[k].Take(nil, 1, nil)
		held()
	}
	require.Equal(t, 80-10, gone, "of 240 MiB, 32")
	small := New(join(a))
	require.True(t, small.Add(func(b []byte) []byte { return wire.AppendSimple(b, wire.Interested) }), "a little always fits")
	for k := range all {
		all[k].Take(make([]byte, 0, 1<<20), 1, nil) // the writer is back for more
	}
	require.Zero(t, held())
}

// Buffers that were filled once, by a peer that did not read for a while, are not kept.
func TestLongBuffersAreNotKept(t *testing.T) {
	o := New(join(account.New(0)))
	var buffer []byte
	for range 3 {
		require.True(t, o.Add(func(b []byte) []byte { return append(b, make([]byte, 60<<10)...) }))
		buffer, _ = o.Take(buffer, 1, nil)
		require.Len(t, buffer, 60<<10)
	}
	o.Take(buffer, 1, nil)
	require.LessOrEqual(t, cap(o.messages), 8<<10)
}

// Messages that count as uploads wait apart from the others, and are bounded and charged as these are until they are written.
func TestAnswers(t *testing.T) {
	a := account.New(0)
	o := New(join(a))
	require.Nil(t, o.Answer())
	first, second := make([]byte, 1<<20), make([]byte, 2<<20)
	require.True(t, o.AddAnswer(first))
	require.True(t, o.AddAnswer(second))
	require.Len(t, o.Wake(), 1)
	require.Equal(t, 3<<20, o.Backlog())
	messages, _ := o.Take(nil, 1, nil)
	require.Empty(t, messages)
	require.Len(t, o.Answer(), len(first))
	o.Answered()
	require.Len(t, o.Answer(), len(second))
	held, _ := a.Held()
	require.EqualValues(t, 2<<20-account.Free, held)
	require.False(t, o.AddAnswer(make([]byte, maxBytes)))
	o.Close()
	held, _ = a.Held()
	require.Zero(t, held)
	require.Nil(t, o.Answer())
}
