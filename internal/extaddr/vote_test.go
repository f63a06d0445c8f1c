package extaddr

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestVote(t *testing.T) {
	us, them := netip.MustParseAddr("1.2.3.4"), netip.MustParseAddr("5.6.7.8")
	from := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{9, byte(i >> 8), byte(i), 1}), 6881)
	}
	var v Vote
	for i := range 4 {
		require.False(t, v.Cast(from(i), us, true))
	}
	for range 10 {
		require.False(t, v.Cast(from(0), us, true), "a network has one voice")
	}
	require.False(t, v.Cast(from(50), netip.MustParseAddr("192.168.1.1"), true), "a local address is none")
	require.False(t, v.Cast(from(51), netip.MustParseAddr("0.0.0.0"), true))
	require.False(t, v.Winner().IsValid())
	require.True(t, v.Cast(from(5), us, true), "five agree")
	require.Equal(t, us, v.Winner())
	require.False(t, v.Cast(from(6), us, true), "which is no news")

	for i := range 11 { // five, and then two
		require.False(t, v.Cast(from(100+i), them, true), "more say otherwise")
	}
	for i := range 2 {
		require.False(t, v.Cast(from(120+i), us, true))
	}
	require.False(t, v.Cast(from(130), them, true))
	for i := range 6 {
		v.Cast(from(140+i), them, true)
	}
	require.Equal(t, them, v.Winner(), "and now two thirds")

	// What was said long ago is forgotten.
	for i := range maxBallots {
		v.Cast(from(200+i), us, true)
	}
	require.Equal(t, us, v.Winner())
	require.Len(t, v.verified.ballots, maxBallots)
	for i := range 200 {
		v.Cast(from(400+i), them, true)
	}
	require.Equal(t, them, v.Winner())
	require.Len(t, v.verified.ballots, maxBallots)
}

// Those that are not verified are heard while there are no others.
func TestVoteOfUnverified(t *testing.T) {
	us, lie := netip.MustParseAddr("1.2.3.4"), netip.MustParseAddr("5.6.7.8")
	from := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{9, byte(i >> 8), byte(i), 1}), 6881)
	}
	var v Vote
	for i := range 20 {
		v.Cast(from(i), lie, false)
	}
	require.Equal(t, lie, v.Winner())
	for i := range 5 {
		v.Cast(from(100+i), us, true)
	}
	require.Equal(t, us, v.Winner())
	for i := range 100 {
		require.False(t, v.Cast(from(200+i), lie, false))
	}
}

// A third that says the same false address seldom wins, and not for long.
func TestVoteWithLiars(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 3))
	us, lie := netip.MustParseAddr("1.2.3.4"), netip.MustParseAddr("5.6.7.8")
	fooled := 0
	for range 1000 {
		var v Vote
		for i := range 200 {
			says := us
			if rng.Float64() < .3 {
				says = lie
			}
			v.Cast(netip.AddrPortFrom(netip.AddrFrom4([4]byte{9, byte(rng.IntN(256)), byte(i), 1}), 6881), says, true)
		}
		if v.Winner() != us {
			fooled++
		}
	}
	require.Less(t, fooled, 20)
}
