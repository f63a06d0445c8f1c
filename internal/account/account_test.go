package account_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/account"
)

const limit = 1 << 20

func held(a *account.Account) int64 {
	n, _ := a.Held()
	return n
}

// never is the giveWay of one that is never to give way.
func never(t *testing.T) func() { return func() { t.Error("gave way") } }

// The free part of each holder is not counted, whatever the kinds.
func TestFree(t *testing.T) {
	a := account.New(limit)
	for range 100 {
		h := a.Join(never(t))
		require.True(t, h.Set(account.Outgoing, account.Free/2))
		require.True(t, h.Set(account.Incoming, account.Free/2))
	}
	require.Zero(t, held(a))
	h := a.Join(never(t))
	require.True(t, h.Set(account.Requests, account.Free+10))
	require.True(t, h.Set(account.Outgoing, 5))
	require.Positive(t, h.Held())
	require.EqualValues(t, 15, held(a))
	require.True(t, h.Set(account.Requests, 0))
	require.Zero(t, held(a))
}

// The more holders there are, the less of each is free, down to a block and some messages.
func TestFreeOfMany(t *testing.T) {
	for _, c := range []struct{ holders, free int }{{1024, account.Free}, {2048, 32 << 10}, {10_000, 24 << 10}} {
		a := account.New(0)
		all := make([]*account.Holder, c.holders)
		for k := range all {
			all[k] = a.Join(never(t))
		}
		for _, h := range all {
			require.True(t, h.Set(account.Outgoing, c.free))
		}
		require.Zero(t, held(a))
		require.True(t, all[0].Set(account.Outgoing, c.free+10))
		require.EqualValues(t, 10, held(a))
		for _, h := range all[1:] {
			h.Leave()
		}
		require.True(t, all[0].Set(account.Outgoing, account.Free))
		require.Zero(t, held(a))
	}
}

// Of those that hold something, the one that holds the most gives way, but for what it gave.
func TestWhoGivesWay(t *testing.T) {
	a := account.New(limit)
	gone := ""
	join := func(name string, gave int64, holds int) *account.Holder {
		h := a.Join(func() { gone += name })
		h.Gave(gave)
		require.True(t, h.Set(account.Incoming, account.Free+holds))
		return h
	}
	fast := join("fast ", 10*limit, limit/2)
	most := join("most ", 0, limit/4)
	less := join("less ", 0, limit/8)
	join("quits ", 0, limit/8-100).Leave()
	require.True(t, less.Set(account.Outgoing, 100))
	require.Empty(t, gone, "there is room")

	needy := join("needy ", 0, limit/8)
	require.True(t, needy.Set(account.Outgoing, 100))
	require.Equal(t, "most ", gone)
	require.False(t, most.Set(account.Incoming, 0), "it has to go")
	require.EqualValues(t, limit/2+limit/8+100+limit/8+100, held(a))

	require.False(t, needy.Set(account.Incoming, limit/2), "now it holds the most itself")
	require.Equal(t, "most ", gone, "which it is told in another way")
	require.EqualValues(t, limit/2+limit/8+100, held(a))
	require.True(t, fast.Set(account.Incoming, limit), "what it gave counts")
	require.Equal(t, "most less ", gone)
	for _, h := range []*account.Holder{fast, most, less, needy} {
		h.Leave()
		h.Leave()
	}
	require.Zero(t, held(a))
}

// One that can do with less is refused more where all others are worth what they hold. Those that are not give way.
func TestGrow(t *testing.T) {
	a := account.New(limit)
	gone := ""
	join := func(name string, gave int64) *account.Holder {
		h := a.Join(func() { gone += name })
		h.Gave(gave)
		return h
	}
	first, second := join("first ", limit), join("second ", limit)
	require.True(t, first.Grow(account.Incoming, account.Free+limit-10))
	require.False(t, second.Grow(account.Incoming, account.Free+20))
	require.True(t, second.Grow(account.Incoming, account.Free+10))
	require.EqualValues(t, limit, held(a))
	require.False(t, first.Grow(account.Incoming, account.Free+limit))
	require.True(t, first.Grow(account.Incoming, account.Free+100))
	require.True(t, second.Grow(account.Incoming, account.Free+200))

	useless := join("useless ", 0)
	require.True(t, useless.Grow(account.Incoming, account.Free+limit-300))
	require.False(t, useless.Grow(account.Incoming, account.Free+limit), "it is the worst itself")
	require.Empty(t, gone)
	require.True(t, second.Grow(account.Incoming, account.Free+201))
	require.Equal(t, "useless ", gone)
	useless.Set(account.Incoming, 0)
	require.EqualValues(t, 301, held(a))
}

// Those that gave more than they hold do not drive out others that hold nothing, or little: of them, the one that holds the most gives way.
func TestWhatWasGivenBuysNoRoom(t *testing.T) {
	a := account.New(limit)
	gone := ""
	join := func(name string, gave int64, holds int) *account.Holder {
		h := a.Join(func() { gone += name })
		h.Gave(gave)
		require.True(t, h.Set(account.Incoming, holds))
		return h
	}
	honest := []*account.Holder{
		join("newcomer ", 0, 0),
		join("useful ", limit/64, account.Free+limit/64),
		join("unproven ", 0, account.Free+limit/128),
	}
	first := join("first ", 100*limit, account.Free+limit/2)
	second := join("second ", 100*limit, account.Free+limit/4)
	require.True(t, second.Set(account.Outgoing, limit/4))
	require.Equal(t, "first ", gone)
	require.False(t, first.Set(account.Incoming, 0))
	require.False(t, second.Set(account.Outgoing, limit), "now it holds the most itself")
	for _, h := range honest {
		require.True(t, h.Set(account.Outgoing, 0))
	}
}

// However many of them there are, they do not hold more than the bound.
func TestManyHolders(t *testing.T) {
	a := account.New(limit)
	var group sync.WaitGroup
	var ended atomic.Int32
	for k := range 50 {
		group.Go(func() {
			h := a.Join(func() { ended.Add(1) })
			defer h.Leave()
			for n := range 100 {
				if !h.Set(account.Kind(n%3), account.Free+n*k*1000) {
					ended.Add(1)
					return
				}
				if held, limit := a.Held(); held > limit {
					t.Error("over the limit")
				}
			}
		})
	}
	group.Wait()
	require.Zero(t, held(a))
	require.NotZero(t, ended.Load())
}
