package dht

import (
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/krpc"
)

const (
	upkeepEvery = 5 * time.Second
	upkeepSoon  = 500 * time.Millisecond // after a query of a stranger, while we know few
	maxGreeted  = 64
)

// upkeep asks the node that was asked longest ago, or one that was never asked: whether it is there, if its
// bucket is full, else for nodes of its bucket. One that was named to us is asked beside it.
func (c *core) upkeep(now time.Time, h *half) {
	if now.Before(h.upkeepAt) {
		return
	}
	h.upkeepAt = now.Add(upkeepEvery)
	if len(h.greeted) > 0 {
		c.greetOne(now, h)
	}
	node, i, full, ok := h.table.upkeep(now)
	if !ok {
		return
	}
	method := krpc.Ping
	if !full {
		method = krpc.FindNode
		c.reply.Target, c.reply.Has = krpc.WithCommon(c.rng, h.table.self, i), krpc.HasTarget
	}
	c.ask(now, &query{to: node.Addr, id: node.ID, known: true, family: h.family}, method)
}

// addNode records an address at which there is said to be a node, by a peer's PORT message, for example.
func (c *core) addNode(now time.Time, a netip.AddrPort) {
	f, ok := familyOf(a)
	if !ok || c.fams[f] == nil || !c.allowed(a) || c.dead.has(now, a) {
		return
	}
	h := c.fams[f]
	if len(h.greeted) >= maxGreeted || h.table.has(a) || slices.Contains(h.greeted, a) {
		return
	}
	h.greeted = append(h.greeted, a)
	c.greet(now, h)
}

// greet asks all that were named to us at once, while we know few.
func (c *core) greet(now time.Time, h *half) {
	for len(h.greeted) > 0 && h.table.size < bucketSize && c.budget.left(now) >= 1 {
		c.greetOne(now, h)
	}
}

func (c *core) greetOne(now time.Time, h *half) {
	a := h.greeted[0]
	h.greeted = slices.Delete(h.greeted, 0, 1)
	c.reply.Target, c.reply.Has = h.table.self, krpc.HasTarget
	c.ask(now, &query{to: a, family: h.family, router: c.isRouter(a)}, krpc.FindNode)
}

// overheard has the nodes that an answer to upkeep names wait until they are asked.
func (c *core) overheard(now time.Time, h *half, from netip.AddrPort, m *krpc.Message) {
	nodes := m.Nodes
	if h.family == ipv6 {
		nodes = m.Nodes6
	}
	for _, n := range nodes[:min(len(nodes), maxNamed)] {
		if c.usable(now, h, from, n.Addr) {
			h.table.heard(now, n, false)
		}
	}
}
