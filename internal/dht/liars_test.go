package dht

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/krpc"
)

// liars are nodes that join as others do, but for how they answer. They know of each other what they
// please, and all say the same false external address.
type liars struct {
	net    *simNet
	nodes  []*simNode     // those of the kind that eclipses
	victim netip.AddrPort // whom the namers name
	pool   []krpc.Contact // invented nodes whose ids follow from their addresses, by id
	named  map[namedTo]ID // whom an eclipsing node was named to, and as whom
}

type namedTo struct {
	asker, node netip.AddrPort
	target      ID
}

var falseIP = netip.MustParseAddrPort("203.0.113.9:9")

// liarKinds are the ways to lie.
var liarKinds = []struct {
	name string
	make func(l *liars, node *simNode)
}{
	{"invent", func(l *liars, node *simNode) {
		node.answer = l.lie(node, func(m, r *krpc.Message, from netip.AddrPort) {
			for range 8 {
				r.Nodes = append(r.Nodes, krpc.Contact{ID: l.near(m.Target), Addr: l.net.address()})
			}
		})
	}},
	{"invent verified", func(l *liars, node *simNode) {
		node.answer = l.lie(node, func(m, r *krpc.Message, from netip.AddrPort) {
			all := l.verified(m.Target)
			for range 8 {
				r.Nodes = append(r.Nodes, all[l.net.rng.IntN(len(all))])
			}
		})
	}},
	{"name a victim", func(l *liars, node *simNode) {
		node.answer = l.lie(node, func(m, r *krpc.Message, from netip.AddrPort) {
			for i := range 8 {
				a := l.victim
				if i > 0 {
					a = netip.AddrPortFrom(a.Addr(), uint16(1+l.net.rng.IntN(65535)))
				}
				r.Nodes = append(r.Nodes, krpc.Contact{ID: l.near(m.Target), Addr: a})
			}
		})
	}},
	{"random addresses", func(l *liars, node *simNode) {
		node.answer = l.lie(node, func(m, r *krpc.Message, from netip.AddrPort) {
			for range 8 {
				r.Nodes = append(r.Nodes, krpc.Contact{ID: krpc.RandomID(l.net.rng), Addr: l.net.address()})
			}
			for range 50 {
				r.Values = append(r.Values, l.net.address())
			}
		})
	}},
	{"flood", func(l *liars, node *simNode) {
		target := l.net.alive[l.net.rng.IntN(len(l.net.alive))]
		m := krpc.Message{Kind: krpc.Query, TID: []byte("xx"), Method: []byte(krpc.GetPeers), Has: krpc.HasID | krpc.HasTarget, ID: krpc.RandomID(l.net.rng)}
		b := m.Append(nil)
		sent := 0
		var flood func()
		flood = func() {
			if node.gone {
				return
			}
			l.net.send(node.addr, target.addr, b, 0)
			if sent++; sent%400 == 0 { // a minute of five
				l.net.after(4*time.Minute, flood)
			} else {
				l.net.after(150*time.Millisecond, flood)
			}
		}
		l.net.after(time.Minute, flood)
	}},
	{"slow", func(l *liars, node *simNode) {
		node.answer = func(from netip.AddrPort, b []byte) bool {
			var m krpc.Message
			if m.Parse(b) != nil || m.Kind != krpc.Query {
				return false
			}
			before := len(node.core.out.list)
			node.core.receive(l.net.now, b, from)
			for i, p := range node.core.out.list {
				if i >= before && p.to == from {
					start := 0
					if i > 0 {
						start = node.core.out.list[i-1].end
					}
					l.net.send(node.addr, from, node.core.out.buf[start:p.end], 5*time.Second+time.Duration(l.net.rng.Int64N(int64(9*time.Second))))
					node.core.out.list[i].to = netip.AddrPortFrom(netip.AddrFrom4([4]byte{240}), 1) // nowhere
				}
			}
			return true
		}
	}},
	{"eclipse", func(l *liars, node *simNode) {
		l.nodes = append(l.nodes, node)
		node.answer = l.lie(node, func(m, r *krpc.Message, from netip.AddrPort) {
			if as, ok := l.named[namedTo{from, node.addr, m.Target}]; ok {
				r.ID = as
			}
			for range 8 {
				other := l.nodes[l.net.rng.IntN(len(l.nodes))]
				as := l.near(m.Target)
				a := other.addr.Addr().As4()
				copy(as[16:], a[:]) // the same whoever names it
				copy(as[:16], m.Target[:16])
				r.Nodes = append(r.Nodes, krpc.Contact{ID: as, Addr: other.addr})
				l.named[namedTo{from, other.addr, m.Target}] = as
			}
		})
	}},
	{"swallow", func(l *liars, node *simNode) {
		node.answer = l.lie(node, func(m, r *krpc.Message, from netip.AddrPort) {})
	}},
}

func newLiars(net *simNet) *liars {
	return &liars{net: net, victim: netip.AddrPortFrom(netip.MustParseAddr("99.1.2.3"), 6881), named: make(map[namedTo]ID)}
}

// lie answers queries with what fill says, and all else as the core does.
func (l *liars) lie(node *simNode, fill func(m, r *krpc.Message, from netip.AddrPort)) func(netip.AddrPort, []byte) bool {
	return func(from netip.AddrPort, b []byte) bool {
		var m krpc.Message
		if m.Parse(b) != nil || m.Kind != krpc.Query {
			return false
		}
		r := krpc.Message{Kind: krpc.Response, TID: m.TID, IP: falseIP, Has: krpc.HasID, ID: node.core.fams[ipv4].table.self}
		if m.Has&krpc.HasTarget != 0 {
			r.Has |= krpc.HasNodes
			r.Token = []byte("liar")
			fill(&m, &r, from)
		}
		l.net.send(node.addr, from, r.Append(nil), 0)
		return true
	}
}

// near is an id nearer to target than that of any honest node.
func (l *liars) near(target ID) ID { return krpc.WithCommon(l.net.rng, target, 24+l.net.rng.IntN(60)) }

// verified are invented nodes near to target whose ids follow from their addresses. Of a large pool of such,
// it takes those around target.
func (l *liars) verified(target ID) []krpc.Contact {
	order := func(a krpc.Contact, id ID) int { return bytes.Compare(a.ID[:], id[:]) }
	if l.pool == nil {
		rng := rand.New(rand.NewPCG(7, 1))
		for range 1 << 18 {
			ip := netip.AddrFrom4([4]byte{byte(101 + rng.IntN(20)), byte(rng.IntN(256)), byte(rng.IntN(256)), byte(1 + rng.IntN(254))})
			l.pool = append(l.pool, krpc.Contact{ID: secureID(ip, rng), Addr: netip.AddrPortFrom(ip, 6881)})
		}
		slices.SortFunc(l.pool, func(a, b krpc.Contact) int { return order(a, b.ID) })
	}
	at, _ := slices.BinarySearchFunc(l.pool, target, order)
	at = min(max(at-12, 0), len(l.pool)-24)
	return l.pool[at : at+24]
}
