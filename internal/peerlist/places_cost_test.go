package peerlist

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// crowdOf returns the peers of a full swarm, each of a network of its own and new, and a newcomer that takes no place from them.
func crowdOf(n int, now time.Time) (peers []Worth, newcomer Connection) {
	for k := range n {
		a := netip.AddrFrom16([16]byte{0x2a, 0, byte(k >> 8), byte(k), 15: 1})
		peers = append(peers, Worth{ID: k + 1, Addr: a, Joined: now.Add(-time.Second), Earned: now, Rate: 1000})
	}
	return peers, Connection{Addr: netip.MustParseAddr("2b00::1"), Incoming: true}
}

// To refuse a newcomer takes no memory for each peer: anybody can come hundreds of times a second.
func TestRefusedNewcomersCostLittle(t *testing.T) {
	now := epoch.Add(time.Hour)
	allocs := func(n int) float64 {
		var places Places
		peers, newcomer := crowdOf(n, now)
		return testing.AllocsPerRun(10, func() {
			_, ok := found(places.Displaced(now, peers, newcomer, false))
			require.False(t, ok)
		})
	}
	few, many := allocs(50), allocs(500)
	require.Less(t, many, few+30)
}

func BenchmarkDisplaced(b *testing.B) {
	now := epoch.Add(time.Hour)
	var places Places
	peers, newcomer := crowdOf(400, now)
	b.ReportAllocs()
	for b.Loop() {
		places.Displaced(now, peers, newcomer, false)
	}
}
