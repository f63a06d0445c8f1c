package peerlist

import (
	"math/rand/v2"
	"net/netip"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// Thousands of namers name candidates that belong to others, some after they named one of their own. The list remembers no more of
// them than it may have candidates, beside those that candidates belong to.
func TestNamersAreBounded(t *testing.T) {
	c := New(rand.New(rand.NewPCG(1, 1)), false)
	c.Bound(minCandidates)
	known := addrPort("80.0.0.1:1")
	c.Add(known, FromPEX, "first", epoch)
	for i := range 20 * minCandidates {
		by := strconv.Itoa(i)
		if i%2 == 0 {
			c.Add(netip.AddrPortFrom(netip.AddrFrom4([4]byte{90, byte(i >> 8), byte(i), 1}), 1), FromPEX, by, epoch)
		}
		c.Add(known, FromPEX, by, epoch)
		require.LessOrEqual(t, len(c.namers), 2*minCandidates+1)
	}
	c.reclaim()
	require.LessOrEqual(t, len(c.namers), minCandidates+1)
}

// A namer remembers the last that it named of the candidates of others, and none that are gone once the list has become small.
func TestSharedAreTheLast(t *testing.T) {
	c := New(rand.New(rand.NewPCG(1, 1)), false)
	host := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{90, byte(i), 0, 1}), 1)
	}
	for i := range maxShared + 1 {
		c.Add(host(i), FromPEX, "", epoch)
		c.nameBy(c.get(host(i)), namedBy{FromDHT, ""})
	}
	n := &namer{}
	for i := range maxShared + 1 {
		n.share(c.get(host(i)))
	}
	require.Len(t, n.shared, maxShared)
	require.Equal(t, host(maxShared), n.shared[maxShared-1].addr)

	c.Bound(10)
	for _, n := range c.namers {
		for _, k := range n.shared {
			require.NotEqual(t, isGone, k.standing)
		}
	}
}
