package peerlist_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
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

// A hundred networks of nodes of the DHT name thousands of candidates that look more promising than those of a peer, which come
// as soon as if the nodes were one.
func TestSourcesTakeTurns(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l := peerlist.New(rand.New(rand.NewPCG(1, 1)), false)
	name := func(network int) {
		for i := range byte(5) {
			l.Add(netip.AddrPortFrom(netip.AddrFrom4([4]byte{20 + i, byte(network >> 8), byte(network), 1}), 1), peerlist.FromDHT, fmt.Sprint(network), now)
		}
	}
	for k := range 100 {
		name(k)
	}
	for i := range byte(5) {
		l.Add(netip.AddrPortFrom(netip.AddrFrom4([4]byte{90, 0, i, 2}), 1), peerlist.FromPEX, "82.0.0.0/16", now)
	}
	for left, k := 5, 1; left > 0; k++ {
		name(100 + k) // a network that is new does not put off the turn of its source, nor that of others
		got, from, ok := l.Next(now)
		require.True(t, ok)
		l.Dialled(got, false, now)
		if from == peerlist.FromPEX {
			left--
		}
		require.LessOrEqual(t, k, 40)
	}
}

// Peers that a tracker names give a little and make room again and again, and one of them names candidates without end, which
// look more promising. That the most promising ones are dialled takes no turn from the peer that names a seed.
func TestSeedThatAPeerNames(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l := peerlist.New(rand.New(rand.NewPCG(1, 1)), false)
	for k := range byte(20) {
		l.Add(netip.AddrPortFrom(netip.AddrFrom4([4]byte{66, 0, k, 1}), 1), peerlist.FromTracker, "tracker", now)
	}
	for k := 0; ; k++ {
		now = now.Add(10 * time.Second)
		for i := range byte(5) {
			l.Add(netip.AddrPortFrom(netip.AddrFrom4([4]byte{20 + i, byte(k), byte(k >> 8), 1}), 1), peerlist.FromPEX, "66.0.0.0/16", now)
		}
		if k == 100 {
			l.Add(netip.MustParseAddrPort("90.0.0.1:1"), peerlist.FromPEX, "82.0.0.0/16", now)
		}
		got, from, ok := l.Next(now)
		require.True(t, ok)
		l.Dialled(got, from == peerlist.FromTracker, now)
		l.MadeRoom(got)
		l.Left(got, true, now)
		if got.Addr() == netip.MustParseAddr("90.0.0.1") {
			return
		}
		require.Less(t, k, 100+20)
	}
}

// BenchmarkManyNamers is what a candidate costs when there are too many, of one namer and of thousands.
func BenchmarkManyNamers(b *testing.B) {
	for _, namers := range []int{1, 3000} {
		b.Run(strconv.Itoa(namers), func(b *testing.B) {
			l := peerlist.New(rand.New(rand.NewPCG(1, 2)), false)
			for i := 0; b.Loop(); i++ {
				a := netip.AddrFrom4([4]byte{byte(20 + i%100), byte(i >> 16), byte(i >> 8), byte(i)})
				l.Add(netip.AddrPortFrom(a, 6881), peerlist.FromPEX, strconv.Itoa(i%namers), time.Unix(1, 0))
			}
		})
	}
}

// BenchmarkBan is what it costs to ban one more address when there are many candidates.
func BenchmarkBan(b *testing.B) {
	l := peerlist.New(rand.New(rand.NewPCG(1, 2)), false)
	for i := range 2900 {
		l.Add(netip.AddrPortFrom(netip.AddrFrom4([4]byte{20, 0, byte(i >> 8), byte(i)}), 6881), peerlist.FromPEX, "", time.Unix(1, 0))
	}
	for i := 0; b.Loop(); i++ {
		l.Ban(netip.AddrPortFrom(netip.AddrFrom4([4]byte{30, byte(i >> 16), byte(i >> 8), byte(i)}), 6881))
	}
}

// A peer names a seed that another names too, before or after it, and then others without end that look more promising. The seed is
// dialled about as soon as the other's turn comes for it, and is not forgotten.
func TestNamerOfManyKeepsNoneFromOthers(t *testing.T) {
	const honest, endless = "50.0.0.0/16", "66.0.0.0/16"
	for _, by := range [][2]string{{honest, endless}, {endless, honest}} {
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		l := peerlist.New(rand.New(rand.NewPCG(1, 1)), false)
		for k := range byte(20) {
			l.Add(netip.AddrPortFrom(netip.AddrFrom4([4]byte{50, k, 1, 1}), 1), peerlist.FromPEX, honest, now)
		}
		seed := netip.MustParseAddrPort("50.1.1.2:1") // the second of its /24 looks less promising
		l.Add(seed, peerlist.FromPEX, by[0], now)
		l.Add(seed, peerlist.FromPEX, by[1], now)
		dialled := 0
		for k := range 10_000 {
			for i := 3 * k; i < 3*k+3; i++ {
				l.Add(netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(100 + i%100), byte(i / 100), 1, 1}), 1), peerlist.FromPEX, endless, now)
			}
			got, _, ok := l.Next(now)
			require.True(t, ok)
			now = now.Add(time.Second)
			if l.Dialled(got, false, now); got == seed {
				dialled = k
				break
			}
			require.True(t, l.Has(seed), "forgotten after %d dials, first named by %s", k, by[0])
		}
		require.NotZero(t, dialled)
		require.Less(t, dialled, 250)
	}
}
