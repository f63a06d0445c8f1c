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
		require.Equal(t, min(last, most), l.Known())
		l.Add(addr(5000+lists), peerlist.FromPEX, "66.0.0.0/16", now)
		require.LessOrEqual(t, l.Known(), most)
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
