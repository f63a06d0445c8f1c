package dht

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/krpc"
)

// contact is a node of bucket i whose id does not follow from its address, unless it is local.
func contact(rng *rand.Rand, self ID, i int, addr netip.AddrPort) krpc.Contact {
	for {
		c := krpc.Contact{ID: krpc.WithCommon(rng, self, i), Addr: addr}
		if netip.MustParsePrefix("127.0.0.0/8").Contains(addr.Addr()) || !verifiedID(c.ID, addr.Addr()) {
			return c
		}
	}
}

// verifiedContact is a node of bucket i whose id follows from its address.
func verifiedContact(rng *rand.Rand, self ID, i int) krpc.Contact {
	for {
		a := host(rng.IntN(1 << 16))
		if id := secureID(a.Addr(), rng); krpc.Common(self, id) == i {
			return krpc.Contact{ID: id, Addr: a}
		}
	}
}

// deepTable is one that was split already.
func deepTable(self ID) table {
	t := newTable(self)
	t.buckets = make([]bucket, 20)
	return t
}

// local is one of many local nodes.
func local(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, byte(i >> 12), 1}), uint16(1+i&0xfff))
}

func (t *table) entry(c krpc.Contact) (*entry, bool) {
	i, ok := t.hosts[hostOf(c.Addr)]
	if !ok {
		return nil, false
	}
	return t.buckets[i].find(hostOf(c.Addr))
}

func (t *table) isLive(c krpc.Contact) bool {
	e, live := t.entry(c)
	return live && e.Contact == c
}

// check holds a table to its invariants.
func (t *table) check(tb testing.TB) {
	size, hosts := 0, 0
	for i := range t.buckets {
		b := &t.buckets[i]
		require.LessOrEqual(tb, len(b.live), capacity(i))
		require.LessOrEqual(tb, len(b.waiting), bucketSize)
		networks, ids := make(map[netip.AddrPort]bool), make(map[ID]bool)
		for _, e := range slices.Concat(b.live, b.waiting) {
			require.Equal(tb, i, t.index(e.ID))
			require.NotEqual(tb, t.self, e.ID)
			require.Equal(tb, i, int(t.hosts[hostOf(e.Addr)]))
			require.False(tb, networks[networkOf(e.Addr)], "a network twice")
			require.False(tb, ids[e.ID], "an id twice")
			networks[networkOf(e.Addr)], ids[e.ID] = true, true
			hosts++
		}
		for _, e := range b.live {
			require.NotZero(tb, e.rtt, "who never answered is not in the table")
			size++
		}
	}
	require.Equal(tb, size, t.size)
	require.Len(tb, t.hosts, hosts)
}

func TestTableTakesWhoAnswered(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	self := krpc.RandomID(rng)
	tab := deepTable(self)
	a := contact(rng, self, 0, host(1))
	tab.heard(epoch, a, true)
	require.Zero(t, tab.size, "whoever asks us waits")
	tab.answered(epoch, contact(rng, self, 0, host(4)), time.Second, true)
	require.Zero(t, tab.size, "who has another id than we were told is not taken in")
	require.False(t, tab.has(a.Addr))
	_, _, _, ok := tab.upkeep(epoch)
	require.False(t, ok)
	node, ok := tab.untried(epoch)
	require.True(t, ok)
	require.Equal(t, a, node, "and is asked")
	_, ok = tab.untried(epoch)
	require.False(t, ok, "once")
	tab.answered(epoch, a, time.Second, false)
	require.True(t, tab.isLive(a))
	require.True(t, tab.has(a.Addr))
	require.False(t, tab.has(netip.AddrPortFrom(a.Addr.Addr(), 1)))

	tab.answered(epoch, krpc.Contact{ID: self, Addr: host(2)}, time.Second, false)
	tab.heard(epoch, krpc.Contact{ID: self, Addr: host(2)}, true)
	require.Equal(t, 1, tab.size, "no other node has our id")

	otherPort := contact(rng, self, 1, netip.AddrPortFrom(a.Addr.Addr(), 1))
	tab.answered(epoch, otherPort, time.Second, false)
	require.Equal(t, 1, tab.size, "an address has one node")

	neighbour := netip.AddrPortFrom(a.Addr.Addr().Next(), 1)
	tab.answered(epoch, contact(rng, self, 0, neighbour), time.Second, false)
	require.Equal(t, 1, tab.size, "a network one in each bucket")
	tab.answered(epoch, contact(rng, self, 1, neighbour), time.Second, false)
	require.Equal(t, 2, tab.size)

	tab.answered(epoch, krpc.Contact{ID: a.ID, Addr: host(3)}, time.Second, false)
	require.Equal(t, 2, tab.size, "an id one address")

	six := netip.MustParseAddrPort("[2001:db8::1]:1")
	tab.answered(epoch, contact(rng, self, 3, six), time.Second, false)
	tab.answered(epoch, contact(rng, self, 3, netip.MustParseAddrPort("[2001:db8:0:0:ffff::2]:1")), time.Second, false)
	require.Equal(t, 3, tab.size, "of IPv6 a /64 counts")

	for port := range uint16(5) {
		tab.answered(epoch, contact(rng, self, 0, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 1000+port)), time.Second, false)
	}
	require.Equal(t, 8, tab.size, "of local ones the port")
	tab.check(t)
}

func TestChangedIDEvicts(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	self := krpc.RandomID(rng)
	tab := deepTable(self)
	a, b, c := contact(rng, self, 5, host(1)), contact(rng, self, 5, host(2)), contact(rng, self, 5, host(3))
	for _, n := range []krpc.Contact{a, b, c} {
		tab.answered(epoch, n, time.Second, false)
	}
	now := epoch.Add(time.Hour)
	for range 3 {
		tab.upkeep(now.Add(-time.Minute))
	}
	e, _ := tab.entry(c)
	e.asked = now.Add(-10 * time.Minute)

	tab.heard(now, krpc.Contact{ID: krpc.RandomID(rng), Addr: a.Addr}, true)
	require.True(t, tab.isLive(a), "a query may be forged")
	tab.answered(now, a, time.Second, true)
	require.True(t, tab.isLive(a), "and another may have named it falsely")
	tab.answered(now, krpc.Contact{ID: krpc.RandomID(rng), Addr: a.Addr}, time.Second, false)
	require.False(t, tab.isLive(a), "an answer is not")
	require.Equal(t, 2, tab.size)
	node, i, full, ok := tab.upkeep(now)
	require.True(t, ok)
	require.Equal(t, c, node, "the others of its bucket are asked, but those that were just now")
	require.Equal(t, 5, i)
	require.False(t, full)
	tab.check(t)
}

// Stale nodes go first, then those that BEP 42 does not bear out, then the slowest.
func TestEviction(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 3))
	self := krpc.RandomID(rng)
	const i = 4 // of eight nodes
	fill := func() (tab table, nodes []krpc.Contact) {
		tab = deepTable(self)
		for len(nodes) < 7 {
			c := verifiedContact(rng, self, i)
			if tab.answered(epoch, c, 100*time.Millisecond, false); tab.isLive(c) {
				nodes = append(nodes, c)
			}
		}
		return tab, nodes
	}
	fresh := func(tab *table) krpc.Contact {
		for {
			if c := verifiedContact(rng, self, i); tab.buckets[i].rival(&entry{Contact: c}) == nil {
				return c
			}
		}
	}

	tab, nodes := fill()
	unverified := contact(rng, self, i, host(70_000%65536))
	tab.answered(epoch, unverified, time.Millisecond, false)
	require.True(t, tab.isLive(unverified), "there is room for one more")
	require.Equal(t, 8, tab.size)

	tab.failed(nodes[2].Addr)
	require.True(t, tab.isLive(nodes[2]), "no node waits for its place")
	one := fresh(&tab)
	tab.answered(epoch, one, time.Hour, false)
	require.True(t, tab.isLive(one))
	require.False(t, tab.isLive(nodes[2]), "the stale one went, slow as the new one is")
	require.True(t, tab.isLive(unverified))

	two := fresh(&tab)
	tab.answered(epoch, two, time.Hour, false)
	require.True(t, tab.isLive(two))
	require.False(t, tab.isLive(unverified), "then the unverified one")
	waits, _ := tab.entry(unverified)
	require.NotNil(t, waits, "which waits")

	three := fresh(&tab)
	tab.answered(epoch, three, time.Second, false)
	require.True(t, tab.isLive(three))
	require.False(t, tab.isLive(one) && tab.isLive(two), "then one of the slowest")
	four := fresh(&tab)
	tab.answered(epoch, four, time.Second, false)
	require.True(t, tab.isLive(four))
	five := fresh(&tab)
	tab.answered(epoch, five, 900*time.Millisecond, false)
	require.False(t, tab.isLive(five), "but not for one that is hardly faster")
	six := contact(rng, self, i, host(65_000))
	tab.answered(epoch, six, time.Nanosecond, false)
	require.False(t, tab.isLive(six), "nor for one that is unverified")
	tab.check(t)

	// A node that waits and has answered takes the place of one that fails.
	tab.failed(nodes[0].Addr)
	require.False(t, tab.isLive(nodes[0]))
	require.Equal(t, 8, tab.size)
	tab.check(t)
}

func TestFailedThrice(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 4))
	self := krpc.RandomID(rng)
	tab := newTable(self)
	a := contact(rng, self, 0, host(1))
	tab.answered(epoch, a, time.Second, false)
	tab.failed(a.Addr)
	tab.failed(a.Addr)
	require.True(t, tab.isLive(a))
	tab.answered(epoch, a, time.Second, false)
	tab.failed(a.Addr)
	tab.failed(a.Addr)
	require.True(t, tab.isLive(a), "an answer wipes out what was before")
	tab.failed(netip.AddrPortFrom(a.Addr.Addr(), 1))
	tab.failed(host(2))
	require.True(t, tab.isLive(a))
	tab.failed(a.Addr)
	require.False(t, tab.isLive(a))
	tab.check(t)

	tab.heard(epoch, a, false)
	tab.failed(a.Addr)
	require.Empty(t, tab.hosts, "who waits has one chance")
}

func TestCapacities(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 5))
	self := krpc.RandomID(rng)
	tab := newTable(self)
	for i := range 60 {
		for j := range 200 {
			tab.answered(epoch, contact(rng, self, i, local(i*200+j)), time.Second, false)
		}
	}
	require.Len(t, tab.buckets, maxDepth)
	for i, want := range []int{128, 64, 32, 16, 8, 8, 8} {
		require.Len(t, tab.buckets[i].live, want)
		require.Len(t, tab.buckets[i].waiting, bucketSize)
	}
	require.Len(t, tab.buckets[maxDepth-1].live, 8, "all that are nearer are in the last")
	tab.check(t)

	_, i, full, ok := tab.upkeep(epoch)
	require.True(t, ok)
	require.True(t, full)
	require.Equal(t, maxDepth-1, i, "what is near to us comes first")
}

// The last bucket is split for nodes whose ids follow from their addresses, and not by those who choose
// to be near to us.
func TestSplit(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 6))
	self := krpc.RandomID(rng)
	tab := newTable(self)
	for i := range 1000 {
		tab.answered(epoch, contact(rng, self, rng.IntN(60), host(i)), time.Second, false)
	}
	require.Len(t, tab.buckets, 1)
	require.Equal(t, 128, tab.size)
	tab.check(t)

	honest := 0
	for i := range 3000 {
		a := host(5000 + i)
		tab.answered(epoch, krpc.Contact{ID: secureID(a.Addr(), rng), Addr: a}, time.Second, false)
	}
	tab.check(t)
	require.Greater(t, len(tab.buckets), 5)
	for i := range tab.buckets {
		for _, e := range tab.buckets[i].live {
			if e.verified {
				honest++
			}
		}
	}
	require.Greater(t, honest, tab.size*9/10, "and as they come, they push those out")

	// Nodes that are all of the new bucket do not split the old.
	tab = newTable(self)
	for i := range 200 {
		tab.answered(epoch, contact(rng, self, 30, local(i)), time.Second, false)
	}
	require.Len(t, tab.buckets, 1)
	tab.answered(epoch, contact(rng, self, 0, local(300)), time.Second, false)
	require.Len(t, tab.buckets, 2)
	tab.check(t)
}

// A node behind a NAT is not asked right after it asked us, unless we know few.

func TestUpkeepWaitsForNAT(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 6))
	self := krpc.RandomID(rng)
	tab := deepTable(self)
	for j := range 40 {
		tab.answered(epoch, contact(rng, self, 0, host(j)), time.Second, false)
	}
	shy := contact(rng, self, 9, host(100))
	tab.heard(epoch, shy, true)
	_, ok := tab.untried(epoch.Add(natLife - 1))
	require.False(t, ok)
	node, ok := tab.untried(epoch.Add(natLife))
	require.True(t, ok)
	require.Equal(t, shy, node)

	named := contact(rng, self, 8, host(101))
	tab.heard(epoch.Add(natLife), named, false)
	node, _ = tab.untried(epoch.Add(natLife))
	require.Equal(t, named, node, "one that was named has not sent us anything")
}

func TestClosest(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 7))
	for range 50 {
		self := krpc.RandomID(rng)
		tab := newTable(self)
		for i := range 1 + rng.IntN(300) {
			tab.answered(epoch, contact(rng, self, rng.IntN(14), local(i)), time.Second, false)
		}
		tab.check(t)
		var all []krpc.Contact
		for i := range tab.buckets {
			for _, e := range tab.buckets[i].live {
				all = append(all, e.Contact)
			}
		}
		for range 20 {
			target := krpc.WithCommon(rng, self, rng.IntN(20))
			slices.SortFunc(all, func(a, b krpc.Contact) int {
				if krpc.Nearer(target, a.ID, b.ID) {
					return -1
				}
				return 1
			})
			use := func(e *entry) bool { return e.ID[19]%4 != 0 }
			var want []krpc.Contact
			for _, c := range all {
				if c.ID[19]%4 != 0 && len(want) < 8 {
					want = append(want, c)
				}
			}
			got := tab.closest(target, make([]krpc.Contact, 0, 8), use)
			require.Equal(t, want, append([]krpc.Contact(nil), got...))
		}
	}
	// Of those that have chosen to be near, there are few.
	all := func(*entry) bool { return true }
	target := ID{}
	tab := newTable(ID{0xff})
	for i := range 20 {
		tab.answered(epoch, contact(rng, target, 30+i, host(i)), time.Second, false)
	}
	near := tab.closest(target, make([]krpc.Contact, 0, 8), all)
	require.Len(t, near, 8, "if there are no others, they will do")
	require.Equal(t, host(19), near[0].Addr)
	for i := range 4 {
		tab.answered(epoch, contact(rng, target, i, local(i)), time.Second, false)
	}
	near = tab.closest(target, make([]krpc.Contact, 0, 8), all)
	require.Len(t, near, 8)
	require.Equal(t, local(0), near[7].Addr)
	for i := range 20 {
		tab.answered(epoch, contact(rng, target, i, local(10+i)), time.Second, false)
	}
	near = tab.closest(target, make([]krpc.Contact, 0, 8), all)
	require.Len(t, near, 8)
	for i, c := range near {
		require.Equal(t, i < 3, c.Addr == host(19-i), i)
	}

	tab = newTable(ID{})
	require.Empty(t, tab.closest(ID{1}, make([]krpc.Contact, 0, 8), func(*entry) bool { return true }))
}

func TestRename(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 8))
	self := krpc.RandomID(rng)
	tab := newTable(self)
	for i := range 2000 {
		tab.answered(epoch, krpc.Contact{ID: secureID(host(i).Addr(), rng), Addr: host(i)}, time.Second, false)
		tab.heard(epoch, krpc.Contact{ID: krpc.RandomID(rng), Addr: host(5000 + i)}, i%2 == 0)
	}
	tab.check(t)
	size := tab.size
	tab.rename(krpc.RandomID(rng))
	tab.check(t)
	require.Greater(t, tab.size, size/2)

	var some ID
	for _, e := range tab.buckets[0].live {
		some = e.ID
	}
	tab.rename(some)
	tab.check(t)
	require.Len(t, tab.good(), tab.size)
}

// Whatever comes, a table keeps its invariants.
func TestTableHistories(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 9))
		self := krpc.RandomID(rng)
		tab := newTable(self)
		now := epoch
		known := make([]krpc.Contact, 300)
		for i := range known {
			a := host(rng.IntN(200))
			if rng.IntN(3) == 0 {
				a = netip.AddrPortFrom(netip.AddrFrom4([4]byte{12, 0, byte(rng.IntN(20)), byte(rng.IntN(5))}), uint16(1+rng.IntN(2)))
			}
			if rng.IntN(10) == 0 {
				a = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(1+rng.IntN(9)))
			}
			known[i] = krpc.Contact{ID: krpc.WithCommon(rng, self, rng.IntN(7)), Addr: a}
			if rng.IntN(3) == 0 {
				known[i].ID = secureID(a.Addr(), rng)
			}
		}
		for range 3000 {
			now = now.Add(time.Duration(rng.Int64N(int64(time.Minute))))
			c := known[rng.IntN(len(known))]
			switch rng.IntN(10) {
			case 0, 1, 2, 3:
				tab.answered(now, c, time.Duration(rng.Int64N(int64(time.Second))), false)
			case 4, 5:
				tab.heard(now, c, rng.IntN(2) == 0)
			case 6, 7:
				tab.failed(c.Addr)
			case 8:
				tab.upkeep(now)
				tab.untried(now)
			case 9:
				if rng.IntN(50) == 0 {
					tab.rename(krpc.WithCommon(rng, self, rng.IntN(7)))
				}
			}
		}
		tab.check(t)
	}
}
