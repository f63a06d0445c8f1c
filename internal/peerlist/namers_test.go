package peerlist_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/peerlist"
)

// The peers of one /32 of IPv6, each in a /48 of its own, name thousands of candidates. That of a peer of another network comes
// after as many as if they were one.
func TestNamersOfOneNetwork(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l := peerlist.New(rand.New(rand.NewPCG(1, 1)), false)
	for k := range 500 {
		by := peerlist.Network(netip.MustParseAddr(fmt.Sprintf("2001:db8:%x::1", k)))
		for i := range byte(5) {
			l.Add(netip.AddrPortFrom(netip.AddrFrom4([4]byte{20 + i, byte(k >> 8), byte(k), 1}), 1), peerlist.FromPEX, by, now)
		}
	}
	honest := netip.MustParseAddrPort("90.0.0.2:1")
	by := peerlist.Network(netip.MustParseAddr("82.0.0.1"))
	l.Add(netip.MustParseAddrPort("90.0.0.1:1"), peerlist.FromPEX, by, now)
	l.Add(honest, peerlist.FromPEX, by, now) // the second of its /24 looks less promising than all others
	for k := 1; ; k++ {
		got, _, ok := l.Next(now)
		require.True(t, ok)
		l.Dialled(got, false, now)
		if got == honest {
			require.LessOrEqual(t, k, 16)
			return
		}
	}
}
