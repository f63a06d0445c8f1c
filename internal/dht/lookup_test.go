package dht

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/krpc"
)

// looked is a lookup whose nodes are drawn: their ids share n bits with the target.
type looked struct {
	lookup
	t   *testing.T
	rng *rand.Rand
	n   int // of addresses drawn
}

func newLooked(t *testing.T) *looked {
	rng := rand.New(rand.NewPCG(2, 2))
	return &looked{lookup: lookup{target: krpc.RandomID(rng), self: krpc.RandomID(rng)}, t: t, rng: rng}
}

// local is a node whose id counts as verified.
func (l *looked) local(bits int) krpc.Contact {
	l.n++
	return krpc.Contact{ID: krpc.WithCommon(l.rng, l.target, bits), Addr: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(l.n))}
}

// forged is a node whose id does not follow from its address.
func (l *looked) forged(bits int) krpc.Contact {
	for {
		l.n++
		c := krpc.Contact{ID: krpc.WithCommon(l.rng, l.target, bits), Addr: host(l.n)}
		if !verifiedID(c.ID, c.Addr.Addr()) {
			return c
		}
	}
}

// ask is the next node that is asked.
func (l *looked) ask() krpc.Contact {
	l.t.Helper()
	c, known, ok := l.next()
	require.True(l.t, ok)
	require.True(l.t, known)
	return c
}

func (l *looked) idle() {
	l.t.Helper()
	_, _, ok := l.next()
	require.False(l.t, ok)
}

// answer has a node answer that was asked, naming others.
func (l *looked) answer(c krpc.Contact, names ...krpc.Contact) {
	l.t.Helper()
	n, number := l.answered(c, true)
	require.NotNil(l.t, n)
	n.token = []byte("token")
	l.named(number, c.Addr, slices.Clone(names)) // which it sorts
}

// A lookup goes to the nearest, whatever the order in which nodes are named, and ends when the twelve nearest
// have answered.
func TestLookup(t *testing.T) {
	l := newLooked(t)
	far := l.local(0)
	l.add(far)
	require.False(t, l.done(0))
	require.Equal(t, far, l.ask())
	l.idle()
	require.False(t, l.done(1), "an answer is awaited")

	var nodes []krpc.Contact
	for bits := range 20 {
		nodes = append(nodes, l.local(bits+1))
	}
	l.answer(far, nodes[:12]...)
	require.Len(t, l.nodes, 9, "of an answer eight are taken")
	require.Equal(t, nodes[11], l.ask(), "the nearest of them")
	l.answer(nodes[11], nodes[12:]...)
	for i := range lookupDepth {
		if 19-i == 11 {
			continue // asked before
		}
		require.False(t, l.done(0))
		require.Equal(t, nodes[19-i], l.ask())
		l.answer(nodes[19-i])
	}
	require.True(t, l.done(0))
	l.idle()
	for i, n := range l.nearest() {
		require.Equal(t, nodes[19-i], n.Contact)
	}
	require.Len(t, l.nearest(), lookupDepth)
}

// A node that does not answer in time holds up a lookup no longer than four seconds, if enough others have.
func TestLookupEndsWithoutTheSlow(t *testing.T) {
	l := newLooked(t)
	slowest := l.local(30)
	l.add(slowest)
	require.Equal(t, slowest, l.ask())
	for range 8 {
		l.add(l.local(10))
	}
	for range 7 {
		l.answer(l.ask())
	}
	l.mark(slowest.Addr, candidateLate)
	last := l.ask()
	require.False(t, l.done(2))
	l.mark(last.Addr, candidateLate)
	require.False(t, l.done(2), "seven are too few to end without the late")
	l.answer(last)
	require.True(t, l.done(1))
	l.answer(slowest)
	require.Equal(t, slowest, l.nearest()[0].Contact, "a late answer counts while the lookup is not over")

	l = newLooked(t)
	l.add(slowest)
	l.ask()
	l.mark(slowest.Addr, candidateFailed)
	require.True(t, l.done(0), "when all have failed, it is over")
}

// A node that chooses its id at will is asked, and pushes no other out.
func TestLookupEclipsed(t *testing.T) {
	l := newLooked(t)
	start := l.local(0)
	l.add(start)
	l.ask()
	var honest []krpc.Contact
	for range 8 {
		honest = append(honest, l.local(12))
	}
	var liars []krpc.Contact
	for range 40 {
		liars = append(liars, l.forged(40))
	}
	l.answer(start, honest...)
	isLiar := make(map[krpc.Contact]bool)
	for _, c := range liars {
		isLiar[c] = true
	}
	l.named(-1, host(0), slices.Clone(liars[:8]))
	liarsAsked, honestAsked := 0, 0
	for !l.done(0) {
		if c := l.ask(); isLiar[c] {
			liarsAsked++
			l.answer(c, liars[8*(liarsAsked%5):][:8]...)
		} else {
			honestAsked++
			l.answer(c, honest...)
		}
	}
	require.Equal(t, 8, honestAsked, "all the nearest honest ones are found")
	require.Less(t, liarsAsked, 16)
	stored := make(map[krpc.Contact]bool)
	for _, n := range l.nearest() {
		stored[n.Contact] = true
	}
	for _, c := range honest {
		require.True(t, stored[c], "and stored at")
	}
	require.Len(t, stored, 8+8+1, "with the one that it began with")
}

// A network whose nodes have no ids that follow from their addresses is looked through as well.
func TestLookupAmongUnverified(t *testing.T) {
	l := newLooked(t)
	var all []krpc.Contact
	for bits := range 30 {
		c := l.forged(bits)
		all = append(all, c)
		l.add(c)
	}
	asked := 0
	for !l.done(0) {
		l.answer(l.ask())
		asked++
	}
	require.Equal(t, 8, asked)
	require.Equal(t, all[29], l.nearest()[0].Contact)
	require.Len(t, l.nearest(), 8)
}

// A node that names others that do not answer is followed no further, unless another names the same.
func TestLookupCredit(t *testing.T) {
	l := newLooked(t)
	liar, honest := l.local(3), l.local(2)
	l.add(liar)
	l.add(honest)
	require.Equal(t, liar, l.ask())
	require.Equal(t, honest, l.ask())
	var invented []krpc.Contact
	for range 8 {
		invented = append(invented, l.local(50))
	}
	l.answer(liar, invented...)
	for range initialCredit {
		l.mark(l.ask().Addr, candidateFailed)
	}
	l.idle()
	var there []krpc.Contact
	for range 8 {
		there = append(there, l.local(10))
	}
	l.answer(honest, there...)
	for range 8 {
		c := l.ask()
		require.Contains(t, there, c)
		l.answer(c)
	}
	require.True(t, l.done(0))

	// One that both name is asked.
	l = newLooked(t)
	l.add(liar)
	l.add(honest)
	l.ask()
	l.ask()
	l.answer(liar, invented...)
	for range initialCredit {
		l.mark(l.ask().Addr, candidateFailed)
	}
	l.idle()
	l.answer(honest, l.nodes[5].Contact)
	require.Equal(t, l.nodes[5].Contact, l.ask())

	// And all are, if there is no other, though one after the other would do.
	l = newLooked(t)
	l.add(liar)
	l.ask()
	l.answer(liar, invented...)
	for range initialCredit {
		l.mark(l.ask().Addr, candidateFailed)
	}
	for range len(invented) - initialCredit {
		l.mark(l.ask().Addr, candidateFailed)
	}
	require.True(t, l.done(0))
}

// One node of each network is accepted. Naming others in it keeps no node out.
func TestLookupHearsOneOfANetwork(t *testing.T) {
	ip := func(last byte) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{44, 4, 4, last}), 6881)
	}
	l := newLooked(t)
	fake := func(last byte, bits int) krpc.Contact {
		for {
			if c := (krpc.Contact{ID: krpc.WithCommon(l.rng, l.target, bits), Addr: ip(last)}); !verifiedID(c.ID, c.Addr.Addr()) {
				return c
			}
		}
	}
	a, b, c, d := fake(1, 20), fake(2, 21), fake(3, 22), fake(4, 23)
	for _, n := range []krpc.Contact{a, b, c} {
		l.add(n)
	}
	require.Len(t, l.nodes, 3)
	l.add(d)
	require.Len(t, l.nodes, 3, "three are known at most")
	require.Equal(t, d, l.nodes[0].Contact, "the nearest ones")
	verified := krpc.Contact{ID: secureID(ip(9).Addr(), l.rng), Addr: ip(9)}
	l.add(verified)
	require.Len(t, l.nodes, 3)
	require.Equal(t, verified, l.ask(), "one with the better id comes first, far as it is")
	l.idle()
	l.mark(verified.Addr, candidateSlow)
	require.Equal(t, d, l.ask(), "another only when it is slow")
	l.mark(d.Addr, candidateFailed)
	l.mark(verified.Addr, candidateFailed)
	l.idle()
	require.True(t, l.done(0), "and no third")

	// A victim is asked once, whatever its port.
	l = newLooked(t)
	victim := netip.MustParseAddr("45.5.5.5")
	for port := range uint16(9) {
		l.add(krpc.Contact{ID: krpc.WithCommon(l.rng, l.target, 40), Addr: netip.AddrPortFrom(victim, port+1)})
	}
	first := l.ask()
	l.idle()
	l.mark(first.Addr, candidateFailed)
	l.idle()
}

func TestLookupOtherID(t *testing.T) {
	l := newLooked(t)
	// A liar names an honest node by a wrong id. It answers by its own, which follows from its address.
	addr := host(1)
	misnamed := krpc.Contact{ID: krpc.WithCommon(l.rng, l.target, 40), Addr: addr}
	real := krpc.Contact{ID: secureID(addr.Addr(), l.rng), Addr: addr}
	l.add(misnamed)
	require.Equal(t, misnamed, l.ask())
	n, _ := l.answered(real, true)
	require.NotNil(t, n)
	require.Equal(t, real, n.Contact)
	require.Equal(t, candidateAnswered, n.state)
	require.Len(t, l.nodes, 1)

	// Another id that does not is not believed; nor is our own.
	for _, id := range []ID{krpc.WithCommon(l.rng, l.target, 30), l.self} {
		l = newLooked(t)
		l.add(misnamed)
		l.ask()
		n, _ = l.answered(krpc.Contact{ID: id, Addr: addr}, true)
		require.Nil(t, n)
	}
	require.Equal(t, candidateAsked, l.nodes[0].state)

	// A node that was not asked does not answer.
	n, _ = l.answered(l.local(3), true)
	require.Nil(t, n)
}

// Addresses without an id are asked while there is no better one.
func TestLookupBlind(t *testing.T) {
	l := newLooked(t)
	a, b := l.local(1), l.local(2)
	l.blind = []netip.AddrPort{a.Addr, b.Addr}
	require.False(t, l.done(0))
	c, known, ok := l.next()
	require.True(t, ok)
	require.False(t, known)
	require.Equal(t, a.Addr, c.Addr)
	n, number := l.answered(a, false)
	require.NotNil(t, n)
	near := l.local(9)
	l.named(number, a.Addr, []krpc.Contact{near})
	require.Equal(t, near, l.ask())
	n, _ = l.answered(a, false)
	require.Nil(t, n, "it did so already")
	_, known, ok = l.next()
	require.True(t, ok)
	require.False(t, known)
	l.answer(near)
	require.False(t, l.done(1))
	require.True(t, l.done(0))

	l = newLooked(t)
	l.blind = []netip.AddrPort{a.Addr}
	for range 8 {
		l.add(l.local(9))
	}
	for range 8 {
		l.answer(l.ask())
	}
	require.True(t, l.done(0), "when there are enough, they are spared")
	l.idle()
}

// However many are named, few are known and few are asked.
func TestLookupIsBounded(t *testing.T) {
	l := newLooked(t)
	l.add(l.local(0))
	asked := 0
	for {
		c, _, ok := l.next()
		if !ok {
			break
		}
		asked++
		n, number := l.answered(c, true)
		require.NotNil(t, n)
		var names []krpc.Contact
		for range 30 {
			names = append(names, l.local(min(159, 1+asked)))
		}
		l.named(number, c.Addr, names)
		require.LessOrEqual(t, len(l.nodes), maxCandidates)
	}
	require.Equal(t, maxAsked, asked)
	require.True(t, l.done(0))
}

// Local nodes are believed of local nodes only.
func TestMayName(t *testing.T) {
	public, local := host(1), netip.MustParseAddrPort("192.168.1.1:53")
	require.True(t, mayName(public, host(2)))
	require.True(t, mayName(local, public))
	require.True(t, mayName(netip.MustParseAddrPort("127.0.0.1:53"), local))
	require.False(t, mayName(local, netip.MustParseAddrPort("127.0.0.1:53")))
	require.False(t, mayName(public, local))
	l := newLooked(t)
	l.named(-1, public, []krpc.Contact{{ID: krpc.RandomID(l.rng), Addr: local}})
	require.Empty(t, l.nodes)
	l.add(krpc.Contact{ID: l.self, Addr: public})
	require.Empty(t, l.nodes, "and no node sends us to ourselves")
}

func TestSameNetwork(t *testing.T) {
	all := []string{"1.2.3.4:1", "1.2.3.5:1", "1.2.4.4:1", "[2001:db8::1]:1", "[2001:db8::2]:2", "[2001:db8:0:1::1]:1", "10.0.0.1:1", "10.0.0.1:2", "10.0.0.2:1", "[::ffff:1.2.3.4]:1", "[fd00::1]:1", "[fd00::1]:2"}
	for _, a := range all {
		for _, b := range all {
			p, q := netip.MustParseAddrPort(a), netip.MustParseAddrPort(b)
			require.Equal(t, networkOf(p) == networkOf(q), sameNetwork(p, q), "%s %s", a, b)
		}
	}
}
