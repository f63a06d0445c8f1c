package dht

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/krpc"
)

// pass lets time pass, and returns the addresses that were asked, and when.
func (b *bench) pass(d time.Duration) (asked []netip.AddrPort, when []time.Duration) {
	b.t.Helper()
	start := b.now
	end := b.now.Add(d)
	for {
		_, to := b.sent()
		for _, a := range to {
			asked, when = append(asked, a), append(when, b.now.Sub(start))
		}
		next := b.next(b.now)
		if next.Before(b.now) {
			next = b.now
		}
		if next.After(end) {
			break
		}
		b.now = next
		b.tick(b.now)
	}
	b.now = end
	return asked, when
}

// answerAll has every query answered that was sent, by a node with an id of its own, and names no other.
func (b *bench) answerAll(ids map[netip.AddrPort]ID) {
	b.t.Helper()
	for range 100 {
		messages, to := b.sent()
		if len(messages) == 0 {
			return
		}
		b.now = b.now.Add(50 * time.Millisecond)
		for i, m := range messages {
			if id, ok := ids[to[i]]; ok {
				r := krpc.Message{Kind: krpc.Response, TID: m.TID, Has: krpc.HasID, ID: id}
				b.receive(b.now, r.Append(nil), to[i])
			}
		}
		b.tick(b.now)
	}
}

func TestBootstrapOrder(t *testing.T) {
	router, named := host(1), host(2)
	b := newBench(t, Config{Nodes: []string{named.String()}, Routers: []string{router.String()}})
	asked, when := b.pass(14 * time.Second)
	require.Equal(t, []netip.AddrPort{named}, asked, "the user's own first")
	require.Zero(t, when[0])
	asked, _ = b.pass(2 * time.Second)
	require.ElementsMatch(t, []netip.AddrPort{router, named}, asked, "then the routers beside")

	// None answers: it tries again, less and less often.
	asked, when = b.pass(time.Hour)
	require.Contains(t, asked, named)
	require.Contains(t, asked, router)
	var gaps []time.Duration
	last := time.Duration(0)
	for i, a := range asked {
		if a == router {
			gaps = append(gaps, when[i]-last)
			last = when[i]
		}
	}
	require.Greater(t, len(gaps), 8)
	require.Less(t, len(gaps), 25)
	require.Less(t, gaps[1], 40*time.Second)
	require.Greater(t, gaps[len(gaps)-1], 2*time.Minute)

	// A router that answers is no node.
	ids := map[netip.AddrPort]ID{router: krpc.RandomID(b.rng)}
	b.pass(10 * time.Minute)
	b.fams[ipv4].boot.soon(b.now)
	b.tick(b.now)
	b.answerAll(ids)
	require.Zero(t, b.fams[ipv4].table.size)

	// One that was named is.
	for i := range 3 {
		ids[host(10+i)] = krpc.RandomID(b.rng)
		b.addNode(b.now, host(10+i))
	}
	b.answerAll(ids)
	require.Equal(t, 3, b.fams[ipv4].table.size)
	require.False(t, b.wantsNodes(b.fams[ipv4]))
	asked, _ = b.pass(12 * time.Second)
	require.NotContains(t, asked, router, "with three nodes, the routers are spared")
	require.NotEmpty(t, asked)
}

func TestBootstrapWithNobody(t *testing.T) {
	b := newBench(t, Config{})
	asked, _ := b.pass(time.Hour)
	require.Empty(t, asked)
	ended := false
	s := &search{target: ID{1}, method: krpc.GetPeers, ended: func(time.Time) { ended = true }}
	b.start(s, b.fams[:]...)
	b.tick(b.now)
	require.True(t, ended, "it is known that there are none")
	require.Zero(t, s.answers)

	b.addNode(b.now, host(1))
	b.addNode(b.now, host(1))
	_, to := b.sent()
	require.Equal(t, []netip.AddrPort{host(1)}, to, "the first that is named is asked at once")
	for i := range 500 {
		b.addNode(b.now, host(2+i))
	}
	require.LessOrEqual(t, len(b.fams[ipv4].greeted), maxGreeted)
	_, to = b.sent()
	require.LessOrEqual(t, len(to), queryBurst)
}

// Peers that say where nodes are, by PORT messages, have us ask few of them: not each port of theirs, and not each of thousands.
func TestNodesThatPeersName(t *testing.T) {
	b := newBench(t, Config{})
	told := func(a netip.AddrPort) {
		b.tell(b.now, a)
		b.tick(b.now)
	}
	for port := range uint16(500) {
		told(netip.AddrPortFrom(host(1).Addr(), 1024+port))
		b.now = b.now.Add(time.Second)
	}
	_, to := b.sent()
	require.Equal(t, []netip.AddrPort{netip.AddrPortFrom(host(1).Addr(), 1024)}, to)

	b.now = b.now.Add(time.Hour)
	told(host(1))
	_, to = b.sent()
	require.Equal(t, []netip.AddrPort{host(1)}, to, "it may have moved")

	for i := range 2000 {
		told(host(2 + i))
		b.now = b.now.Add(10 * time.Millisecond)
	}
	_, to = b.sent()
	require.InDelta(t, toldBurst+20*toldRate, len(to), 3)
}

// Names are looked up, in the order of need, and again when they came to nothing.
func TestNames(t *testing.T) {
	b := newBench(t, Config{Nodes: []string{"node.example:1", "10.0.0.1:7"}, Routers: []string{"router.example:2", "router.example:2"}})
	asked, _ := b.pass(time.Second)
	require.Equal(t, []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:7")}, asked)
	require.Equal(t, []string{"node.example:1"}, b.lookUp)
	b.lookUp = nil
	b.resolved(b.now, "node.example:1", nil)
	b.pass(30 * time.Second)
	require.Equal(t, []string{"router.example:2"}, b.lookUp)
	b.lookUp = nil
	b.resolved(b.now, "router.example:2", []netip.AddrPort{host(1), netip.MustParseAddrPort("[2001:db8::1]:2")})
	asked, _ = b.pass(time.Minute)
	require.Contains(t, asked, host(1))
	require.True(t, b.isRouter(host(1)))
	require.False(t, b.isRouter(host(2)))
	b.resolved(b.now, "other.example:1", []netip.AddrPort{host(3)})
	b.pass(10 * time.Minute)
	require.Contains(t, b.lookUp, "router.example:2")

	for i := range 100 {
		b.addHost(host(i).String())
	}
	require.Len(t, b.hosts, 3+maxHosts)
}

// Many nodes that are gone, of an earlier run or of torrents, do not keep out those that are named later.
func TestManyNodesThatAreGone(t *testing.T) {
	var gone []string
	for i := range 2 * maxFirst {
		gone = append(gone, host(1000+i).String())
	}
	b := newBench(t, Config{Nodes: gone, Routers: []string{host(1).String()}})
	for i := range 200 {
		b.addHost(host(2000 + i).String())
	}
	b.addHost(host(2).String())
	require.True(t, b.isRouter(host(1)))
	asked, _ := b.pass(10 * time.Minute)
	require.Contains(t, asked, host(1))
	require.Contains(t, asked, host(2))
}

// A name with very many addresses, which a torrent named, counts as few nodes.
func TestNamesWithManyAddresses(t *testing.T) {
	b := newBench(t, Config{Nodes: []string{host(1).String()}, Routers: []string{"router.example:2"}})
	b.addHost("six.example:1")
	b.resolved(b.now, "six.example:1", []netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:2"), host(3)})
	for i := range 16 {
		name := fmt.Sprintf("many%d.example:1", i)
		b.addHost(name)
		var gone []netip.AddrPort
		for j := range 1000 {
			gone = append(gone, host(1000*(i+1)+j))
		}
		b.resolved(b.now, name, gone)
	}
	b.pass(30 * time.Second)
	b.resolved(b.now, "router.example:2", []netip.AddrPort{host(2)})
	asked, _ := b.pass(10 * time.Minute)
	require.Contains(t, asked, host(1))
	require.Contains(t, asked, host(2))
	require.Contains(t, asked, host(3))
}

// Without a network no node is blamed, and all is as before when there is one again.
func TestOutage(t *testing.T) {
	b := newBench(t, Config{Nodes: []string{host(1).String()}, Routers: []string{host(2).String()}})
	ids := make(map[netip.AddrPort]ID)
	for i := range 30 {
		ids[host(10+i)] = krpc.RandomID(b.rng)
		b.addNode(b.now, host(10+i))
	}
	b.tick(b.now)
	b.answerAll(ids)
	for range 200 {
		b.now = b.now.Add(upkeepEvery)
		b.tick(b.now)
		b.answerAll(ids)
	}
	h := b.fams[ipv4]
	require.Equal(t, 30, h.table.size)
	require.True(t, h.connected())

	b.pass(3 * time.Hour)
	require.False(t, h.connected())
	require.Equal(t, 30, h.table.size, "it may be us")
	asked, when := b.pass(10 * time.Minute)
	require.Contains(t, asked, host(2), "even the routers are asked, now and then")
	require.Less(t, len(asked), 600)
	require.NotEmpty(t, when)

	// The first answer brings it back, and with it a lookup of ourselves.
	b.pass(upkeepEvery)
	b.tick(b.now)
	b.pass(time.Millisecond)
	before := b.stats.Lookups
	b.now = b.now.Add(upkeepEvery)
	b.tick(b.now)
	b.answerAll(ids)
	require.True(t, h.connected())
	require.Greater(t, b.stats.Lookups, before-1)

	// Elsewhere it makes itself known at once.
	before = b.stats.Lookups
	b.networkChanged(b.now, true, false)
	b.tick(b.now)
	require.Equal(t, before+1, b.stats.Lookups)
	b.networkChanged(b.now, true, true)
	require.NotNil(t, b.fams[ipv6])
	b.networkChanged(b.now, false, true)
	require.Nil(t, b.fams[ipv4])
	b.tick(b.now)
	b.pass(time.Minute)
}

// The id follows from the address that a router says, until others agree on another.
func TestRouterKnowsAddress(t *testing.T) {
	b := newBench(t, Config{})
	b.fill(ipv4, 50)
	h := b.fams[ipv4]
	for _, router := range []string{"8.8.4.4", "8.8.8.8"} { // it may change its mind
		us := netip.MustParseAddr(router)
		b.located(b.now, us)
		require.True(t, verifiedID(h.table.self, us), router)
		require.Equal(t, us, b.statsNow().External4)
	}
	id := h.table.self
	b.located(b.now, netip.MustParseAddr("192.168.1.1"))
	require.Equal(t, id, h.table.self, "another router is behind that one")

	other := netip.MustParseAddr("9.9.9.9")
	for i := range 20 {
		h.vote.Cast(netip.AddrPortFrom(netip.AddrFrom4([4]byte{7, byte(i), 0, 1}), 6881), other, true)
	}
	require.Equal(t, other, h.vote.Winner())
	b.located(b.now, netip.MustParseAddr("8.8.4.4"))
	require.Equal(t, other, h.vote.Winner(), "nodes know better")
	h.table.check(t)
}

// The id follows from the address that others agree on, and is made known.
func TestExternalAddress(t *testing.T) {
	b := newBench(t, Config{})
	b.fill(ipv4, 50)
	h := b.fams[ipv4]
	before := h.table.self
	us := netip.MustParseAddr("8.8.4.4")
	for i := 0; h.table.self == before; i++ {
		require.Less(t, i, 20)
		b.pass(upkeepEvery)
		b.now = b.now.Add(upkeepEvery)
		b.tick(b.now)
		messages, to := b.sent()
		for j, m := range messages {
			r := krpc.Message{Kind: krpc.Response, TID: m.TID, Has: krpc.HasID, ID: krpc.RandomID(b.rng), IP: netip.AddrPortFrom(us, 6881)}
			for k := range h.table.buckets {
				for _, e := range h.table.buckets[k].live {
					if e.Addr == to[j] {
						r.ID = e.ID
					}
				}
			}
			b.receive(b.now, r.Append(nil), to[j])
		}
	}
	require.True(t, verifiedID(h.table.self, us))
	require.Equal(t, us, b.statsNow().External4)
	require.NotZero(t, h.table.size)
	h.table.check(t)
	messages, _ := b.sent()
	b.tick(b.now)
	more, _ := b.sent()
	for _, m := range append(messages, more...) {
		if string(m.Method) == krpc.FindNode && m.Target == h.table.self {
			return
		}
	}
	t.Error("no node hears of it")
}

// An idle node asks one node every five seconds, and each in its turn.
func TestUpkeep(t *testing.T) {
	b := newBench(t, Config{})
	h := b.fams[ipv4]
	ids := make(map[netip.AddrPort]ID)
	for i := range 300 {
		c := krpc.Contact{ID: krpc.RandomID(b.rng), Addr: local(i)}
		h.table.answered(b.now, c, time.Second, false)
		ids[c.Addr] = c.ID
	}
	h.refreshAt = b.now.Add(24 * time.Hour)
	n := h.table.size
	asked := make(map[netip.AddrPort]int)
	pings, finds := 0, 0
	for range n {
		b.now = b.now.Add(upkeepEvery)
		b.tick(b.now)
		messages, to := b.sent()
		require.Len(t, messages, 1)
		asked[to[0]]++
		m := messages[0]
		i := h.table.index(ids[to[0]])
		if full := len(h.table.buckets[i].live) == capacity(i); full {
			require.Equal(t, krpc.Ping, string(m.Method))
			pings++
		} else {
			require.Equal(t, krpc.FindNode, string(m.Method))
			require.Equal(t, i, h.table.index(m.Target), "in its bucket")
			finds++
		}
		r := krpc.Message{Kind: krpc.Response, TID: m.TID, Has: krpc.HasID, ID: ids[to[0]]}
		b.receive(b.now, r.Append(nil), to[0])
	}
	require.Len(t, asked, n)
	require.Positive(t, pings)
	require.Positive(t, finds)
}

// It looks for those near to it again and again, since others come; often at first.
func TestRefresh(t *testing.T) {
	b := newBench(t, Config{})
	b.fill(ipv4, 50)
	var at []time.Duration
	start := b.now
	for b.now.Sub(start) < 2*time.Hour {
		b.now = b.now.Add(time.Second)
		before := b.stats.Lookups
		b.tick(b.now)
		if b.stats.Lookups > before {
			at = append(at, b.now.Sub(start).Round(time.Minute))
		}
		b.serve(func(m, r *krpc.Message, at netip.AddrPort) bool { return true })
	}
	require.Equal(t, []time.Duration{time.Minute, 3 * time.Minute, 7 * time.Minute, 15 * time.Minute, 30 * time.Minute}, at[:5])
	require.InDelta(t, 10, len(at), 1)
}

// A few nodes that know one of them know each other within seconds; a lost query costs one its time-out.
func TestFewNodes(t *testing.T) {
	for seed := range uint64(20) {
		most, loss := 5*time.Second, 0.
		if seed%2 == 1 {
			most, loss = 30*time.Second, .02
		}
		net := newSimNet(seed, loss)
		first := net.join(Config{}, 0)
		net.run(time.Duration(net.rng.Int64N(int64(time.Minute))))
		for range 7 {
			net.join(Config{Nodes: []string{first.addr.String()}}, 0)
		}
		began := net.now
		for slices.ContainsFunc(net.alive, func(n *simNode) bool { return n.core.fams[ipv4].table.size < 7 }) {
			net.run(100 * time.Millisecond)
			require.LessOrEqual(t, net.now.Sub(began), most, seed)
		}
	}
}
