package dht

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/krpc"
)

// at returns a node of the site of the addresses that begin with 32 given bits. Its id follows from its address, and shares as
// many bits with the target at least.
func (l *looked) at(begin uint32, bits int) krpc.Contact {
	for {
		var ip [16]byte
		binary.BigEndian.PutUint32(ip[:], begin)
		binary.BigEndian.PutUint32(ip[4:], l.rng.Uint32())
		a := netip.AddrFrom16(ip)
		if id := secureID(a, l.rng); krpc.Common(id, l.target) >= bits {
			return krpc.Contact{ID: id, Addr: netip.AddrPortFrom(a, 6881)}
		}
	}
}

// isIn reports whether a node is of the site of the addresses that begin with 32 given bits.
func isIn(c krpc.Contact, s uint32) bool { return siteOf(c.Addr) == site(s>>3) }

// answerAll has all nodes answer that are asked until the lookup is done. Those of a site name what sybils says.
func (l *looked) answerAll(s uint32, sybils func() []krpc.Contact, honest []krpc.Contact) {
	l.t.Helper()
	for !l.done(0) {
		c := l.ask()
		if isIn(c, s) {
			l.answer(c, sybils()...)
		} else {
			l.answer(c, append(sybils()[:2], honest...)...)
		}
	}
}

const (
	largeSite  = 0x2a0f1234
	honestSite = 0x2a000000 // the first of them, of which each node has its own
	nextSite   = 1 << 3     // the next /29
)

// Of a large network of IPv6 any number of nodes may be as near to a target as they like, with ids that follow from their
// addresses. They name each other, and ever nearer ones, but are never all that a look-up asks, or stores at.
func TestLookupBesideALargeNetwork(t *testing.T) {
	for _, nearer := range []bool{false, true} {
		l := newLooked(t)
		bits := 9
		sybils := func() (nodes []krpc.Contact) {
			for range 8 {
				nodes = append(nodes, l.at(largeSite, bits))
			}
			if nearer {
				bits = min(bits+1, 13)
			}
			return nodes
		}
		var honest []krpc.Contact
		for i := range uint32(20) {
			honest = append(honest, l.at(honestSite+i*nextSite, 3))
		}
		for _, c := range honest[:3] {
			l.add(c)
		}
		for i := 3; i < len(honest); i += 5 {
			l.answerAll(largeSite, sybils, honest[i:min(i+5, len(honest))])
		}
		require.LessOrEqual(t, l.asked, maxAsked)
		count := 0
		for _, n := range l.nearest() {
			if !isIn(n.Contact, largeSite) {
				count++
			}
		}
		require.GreaterOrEqual(t, count, bucketSize)
	}
}

// Nodes that are invented of a site do not keep out those that are there.
func TestInventedNodesOfASite(t *testing.T) {
	l := newLooked(t)
	liar, teller := l.at(honestSite, 0), l.at(honestSite+nextSite, 0)
	l.add(liar)
	l.add(teller)
	var invented []krpc.Contact
	for range 8 {
		invented = append(invented, l.at(largeSite, 9))
	}
	there := l.at(largeSite, 6)
	l.ask()
	l.ask()
	l.answer(liar, invented...)
	l.answer(teller, there)
	for range 100 {
		c, _, ok := l.next()
		if !ok {
			break
		}
		if c == there {
			return
		}
		l.mark(c.Addr, candidateFailed)
	}
	t.Fatal("not asked")
}

// Where all nodes are of one large network, a look-up finds the nearest of them.
func TestLookupInALargeNetwork(t *testing.T) {
	l := newLooked(t)
	for range 3 {
		l.add(l.at(largeSite, 2))
	}
	var nodes []krpc.Contact
	for bits := range 10 {
		nodes = append(nodes, l.at(largeSite, bits+3), l.at(largeSite, bits+3))
	}
	for !l.done(0) {
		c := l.ask()
		l.answer(c, nodes...)
	}
	want := slices.SortedFunc(slices.Values(nodes), func(a, b krpc.Contact) int {
		if krpc.Nearer(l.target, a.ID, b.ID) {
			return -1
		}
		return 1
	})
	var got []krpc.Contact
	for _, n := range l.nearest() {
		got = append(got, n.Contact)
	}
	require.Equal(t, want[:bucketSize], got[:bucketSize])
	require.GreaterOrEqual(t, len(got), bucketSize+3)
	require.Less(t, l.asked, 25)
}

// Who has several large networks is not all that a look-up finds either.
func TestLookupBesideSeveralLargeNetworks(t *testing.T) {
	l := newLooked(t)
	sybils := func(n int) (nodes []krpc.Contact) {
		for i := range n {
			nodes = append(nodes, l.at(largeSite+uint32(i%3)*nextSite, 10))
		}
		return nodes
	}
	var honest []krpc.Contact
	for i := range uint32(20) {
		honest = append(honest, l.at(honestSite+i*nextSite, 3))
	}
	for _, c := range honest[:8] {
		l.add(c)
	}
	for !l.done(0) {
		if c := l.ask(); slices.Contains(honest, c) {
			l.answer(c, append(sybils(3), honest[l.rng.IntN(10):][:5]...)...)
		} else {
			l.answer(c, sybils(8)...)
		}
	}
	count := 0
	for _, n := range l.nearest() {
		if slices.Contains(honest, n.Contact) {
			count++
		}
	}
	require.GreaterOrEqual(t, count, lookupDepth/2)
	require.LessOrEqual(t, l.asked, maxAsked)
}

// A candidate drops none that is nearer and named by the same node, and none if it is not taken in itself.
func TestCandidatesThatAreNotTakenIn(t *testing.T) {
	l := newLooked(t)
	liar := l.at(honestSite, 0)
	l.add(liar)
	l.ask()
	var near []krpc.Contact
	for range 8 {
		near = append(near, l.at(largeSite, 6))
	}
	l.answer(liar, near...)
	all := slices.Clone(l.nodes)
	l.named(0, liar.Addr, []krpc.Contact{l.at(largeSite, 0)})
	require.Subset(t, l.nodes, all)

	network := l.at(largeSite, 0)
	for i := range byte(maxSiblings) {
		ip := network.Addr.Addr().As16()
		ip[15] = i + 1
		l.add(krpc.Contact{ID: krpc.WithCommon(l.rng, l.target, 20), Addr: netip.AddrPortFrom(netip.AddrFrom16(ip), 6881)})
	}
	for range 8 {
		l.add(l.at(largeSite, 6))
	}
	all = slices.Clone(l.nodes)
	l.add(network)
	require.True(t, len(l.nodes) == len(all))
	require.True(t, slices.ContainsFunc(l.nodes, func(n candidate) bool { return n.Contact == network }))
}

// The nodes of one site answer sooner and last longer than others, and are first in a bucket. They keep a quarter of it, also
// over weeks in which all others come and go. They have all of it while there are no others.
func TestBucketsOfALargeNetwork(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	table, now := newTable(ID{}), time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	draw := func(begin uint32) krpc.Contact {
		var ip [16]byte
		binary.BigEndian.PutUint32(ip[:], begin)
		binary.BigEndian.PutUint32(ip[4:], rng.Uint32())
		a := netip.AddrFrom16(ip)
		return krpc.Contact{ID: secureID(a, rng), Addr: netip.AddrPortFrom(a, 6881)}
	}
	count := func() (sybils int) {
		for _, b := range table.buckets {
			for _, e := range b.live {
				if isIn(e.Contact, largeSite) {
					sybils++
				}
			}
		}
		return sybils
	}
	for range 2000 {
		table.answered(now, draw(largeSite), 10*time.Millisecond, false)
	}
	require.Equal(t, table.size, count())
	all := table.size
	var honest []krpc.Contact
	for k := range 20_000 {
		now = now.Add(time.Minute)
		c := draw(honestSite + uint32(rng.IntN(1<<12))*nextSite)
		honest = append(honest, c)
		table.answered(now, c, 100*time.Millisecond, false)
		table.answered(now, draw(largeSite), 10*time.Millisecond, false)
		if k >= 400 {
			for range maxFails {
				table.failed(honest[k-400].Addr)
			}
		}
	}
	table.check(t)
	require.Greater(t, table.size, all*9/10)
	require.Less(t, count(), table.size/2)
}
