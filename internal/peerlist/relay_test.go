package peerlist_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/peerlist"
)

func TestRelays(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l := peerlist.New(rand.New(rand.NewPCG(1, 1)), false)
	a := netip.MustParseAddrPort("80.0.0.1:1")
	relay := func(n byte) netip.AddrPort { return netip.AddrPortFrom(netip.AddrFrom4([4]byte{81, n, 0, 1}), 1) }
	l.AddRelay(a, relay(1))
	require.Empty(t, l.Relays(a), "of what is no candidate")
	require.False(t, l.Take(a, false))
	l.Add(a, peerlist.FromPEX, "", now)
	for n := range byte(20) {
		l.AddRelay(a, relay(n))
	}
	require.Len(t, l.Relays(a), 16)
	require.Contains(t, l.Relays(a), relay(0), "those that come later do not take the places of all")
	require.Contains(t, l.Relays(a), relay(19), "but that of one")
	require.True(t, l.DropRelay(a, relay(19)))
	for n := byte(14); n > 3; n-- {
		require.True(t, l.DropRelay(a, relay(n)))
	}
	require.False(t, l.DropRelay(a, relay(5)))
	l.AskedRelay(a, relay(1))
	l.AskedRelay(a, relay(7))
	require.Equal(t, []netip.AddrPort{relay(0), relay(2), relay(3), relay(1)}, l.Relays(a))
	neighbour := netip.MustParseAddrPort("81.2.9.9:1")
	l.AddRelay(a, neighbour)
	require.Equal(t, []netip.AddrPort{relay(0), neighbour, relay(3), relay(1)}, l.Relays(a), "the last of its network")

	require.True(t, l.Take(a, false))
	require.Equal(t, 1, l.Dialling())
	require.False(t, l.Take(a, false), "it is being dialled")
	require.True(t, l.Dialled(a, false, now))
	require.True(t, l.Take(a, false), "though it is not due")
	require.True(t, l.Dialled(a, true, now))
	require.False(t, l.Take(a, false), "it is connected")
}

// A dial that a stranger asked for leaves no trace if it fails.
func TestTake(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l := peerlist.New(rand.New(rand.NewPCG(1, 1)), false)
	a, b := netip.MustParseAddrPort("80.0.0.1:1"), netip.MustParseAddrPort("81.0.0.1:1")
	l.Add(a, peerlist.FromTracker, "", now)
	for range 5 {
		require.True(t, l.Take(a, false))
		require.True(t, l.Dialled(a, false, now))
	}
	got, _, ok := l.Next(now)
	require.True(t, ok)
	require.Equal(t, a, got)
	l.Dialled(a, false, now)
	due, _ := l.Due()
	l.Take(a, false)
	l.Dialled(a, false, now.Add(5*time.Second))
	again, ok := l.Due()
	require.True(t, ok)
	require.Equal(t, due, again)

	require.True(t, l.Take(b, l.Add(b, peerlist.FromPEX, "", now)))
	l.Dialled(b, false, now)
	_, _, ok = l.Next(now)
	require.False(t, ok, "no other source named this one")
	require.Zero(t, l.Dialling())
}
