package peerlist_test

import (
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/memtest"
	"github.com/shoal-go/torrent/internal/peerlist"
)

// Lists that were long before there were many drop candidates, except those in use and the user's.
func TestBound(t *testing.T) {
	now := time.Unix(1e9, 0)
	addr := func(k int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{66, byte(k >> 8), byte(k), 1}), 1)
	}
	l := peerlist.New(rand.New(rand.NewPCG(1, 1)), false)
	for k := range 30 {
		l.Add(addr(k), peerlist.FromUser, "", now)
	}
	for range 10 {
		_, _, ok := l.Next(now)
		require.True(t, ok)
	}
	for k := range 4000 {
		l.Add(addr(k), peerlist.FromPEX, "66.0.0.0/16", now)
	}
	require.Greater(t, l.Known(), 2500)
	last := l.Known()
	for _, lists := range []int{1, 50, 100, 1000, 1e6} {
		most := peerlist.Share(lists)
		l.Bound(most)
		require.Equal(t, min(last, most+30), l.Known())
		l.Add(addr(5000+lists), peerlist.FromPEX, "66.0.0.0/16", now)
		require.LessOrEqual(t, l.Known(), most+30)
		last = l.Known()
	}
	l.Bound(0)
	require.Equal(t, 30, l.Known())
	require.Equal(t, 10, l.Dialling())
	for k := range 30 {
		require.True(t, l.Has(addr(k)))
	}
	l.Bound(peerlist.Share(1))
	require.True(t, l.Add(addr(6000), peerlist.FromPEX, "66.0.0.0/16", now), "there is room again")
}

// However many peers the user names, there is room for those that others name. There used to be none, and to name 24,000 took a minute.
func TestPeersOfTheUserLeaveRoom(t *testing.T) {
	now := time.Unix(1e9, 0)
	addr := func(from byte, k int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{from, byte(k >> 8), byte(k), 1}), 1)
	}
	l := peerlist.New(rand.New(rand.NewPCG(1, 1)), false)
	const users = 50_000
	for k := range users {
		l.Add(addr(66, k), peerlist.FromPEX, "66.0.0.0/16", now)
		l.Add(addr(66, k), peerlist.FromUser, "", now)
	}
	for k := range 1000 {
		require.True(t, l.Add(addr(67, k), peerlist.FromTracker, "http://t.example", now))
	}
	require.Equal(t, users+1000, l.Known())
	l.Bound(peerlist.Share(1000))
	require.Equal(t, users+peerlist.Share(1000), l.Known())
	require.True(t, l.Add(addr(68, 0), peerlist.FromTracker, "http://other.example", now))
	l.BanHost(addr(66, 0).Addr())
	l.Bound(0)
	require.Equal(t, users-1, l.Known())
}

// A list that was long keeps no memory of that.
func TestBoundFreesMemory(t *testing.T) {
	now := time.Unix(1e9, 0)
	before := memtest.Heap()
	lists := make([]*peerlist.List, 20)
	for i := range lists {
		lists[i] = peerlist.New(rand.New(rand.NewPCG(1, 1)), false)
		for k := range 3000 {
			a := netip.AddrFrom4([4]byte{66 + byte(k>>14), byte(k >> 6), byte(k << 2), 1})
			lists[i].Add(netip.AddrPortFrom(a, 1), peerlist.FromPEX, a.String(), now)
		}
		lists[i].Bound(0)
	}
	require.Less(t, (memtest.Heap()-before)/int64(len(lists)), int64(60<<10))
	runtime.KeepAlive(lists)
}

// Peers that lie, or that send us our own peer id, come from ever new addresses. They are remembered, but not without end, beside
// those that the user bans.
func TestBansAreBounded(t *testing.T) {
	now := time.Unix(1e9, 0)
	addr := func(k int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{66 + byte(k>>16), byte(k >> 8), byte(k), 1}), 1)
	}
	byUser := netip.MustParseAddr("99.0.0.1")
	l := peerlist.New(rand.New(rand.NewPCG(1, 1)), false)
	before := memtest.Heap()
	l.BanHost(byUser)
	banned, self := 0, 0
	const n = 40_000
	for k := range n {
		l.Ban(addr(k))
		require.True(t, l.Banned(addr(k)))
		l.ExcludeSelf(addr(n + k))
		require.False(t, l.Add(addr(n+k), peerlist.FromPEX, "66.0.0.0/16", now))
	}
	for k := range n {
		if l.Banned(addr(k)) {
			banned++
		}
		if l.IsSelf(addr(n + k)) {
			self++
		}
	}
	require.Equal(t, 10_000, banned)
	require.Equal(t, 1000, self)
	require.True(t, l.Banned(netip.AddrPortFrom(byUser, 1)))
	require.Less(t, memtest.Heap()-before, int64(4<<20))
	runtime.KeepAlive(l)
}
