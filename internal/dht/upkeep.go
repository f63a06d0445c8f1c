package dht

import (
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/krpc"
)

const (
	upkeepEvery = 5 * time.Second
	tryEvery    = 5 * time.Second
	trySoon     = 250 * time.Millisecond // while we know few, or after a query of a stranger then
	maxGreeted  = 64

	toldRate  = 1 // addresses that peers name, a second
	toldBurst = 2 * bucketSize

	// How often we look for the nodes nearest to us, after we came, and in the long run.
	refreshFirst = time.Minute
	refreshEvery = 15 * time.Minute
)

// refreshSoon has us look for those near to us in a minute, and then less and less often.
func (h *half) refreshSoon(now time.Time) {
	h.refreshWait = refreshFirst
	h.refreshAt = now.Add(refreshFirst)
}

// upkeep asks the node that was asked longest ago: whether it is there, if its bucket is full, else for nodes
// of its bucket.
func (c *core) upkeep(now time.Time, h *half) {
	if now.Before(h.upkeepAt) {
		return
	}
	h.upkeepAt = now.Add(upkeepEvery)
	if !now.Before(h.refreshAt) {
		h.boot.again = true
		h.refreshWait = min(2*h.refreshWait, refreshEvery)
		h.refreshAt = now.Add(h.refreshWait)
	}
	if node, i, full, ok := h.table.upkeep(now); ok {
		if full {
			c.ask(now, &query{to: node.Addr, id: node.ID, known: true, family: h.family}, krpc.Ping)
		} else {
			c.findNodes(now, h, node, i)
		}
	}
}

// try asks one that was never asked, if there is a place for it; the next one soon, while we know few.
func (c *core) try(now time.Time, h *half) {
	if now.Before(h.tryAt) {
		return
	}
	h.tryAt = now.Add(tryEvery)
	if node, ok := h.table.untried(now); ok {
		c.findNodes(now, h, node, h.table.index(node.ID))
		if h.table.size < bucketSize {
			h.tryAt = now.Add(trySoon)
		}
	} else if len(h.greeted) > 0 {
		c.greetOne(now, h)
	}
}

// findNodes asks a node for others of bucket i.
func (c *core) findNodes(now time.Time, h *half, node krpc.Contact, i int) {
	if last := len(h.table.buckets) - 1; i == last && c.rng.IntN(2) == 0 {
		i = maxDepth // the last bucket is of all that are nearer, too
	}
	c.reply.Target, c.reply.Has = krpc.WithCommon(c.rng, h.table.self, i), krpc.HasTarget
	c.ask(now, &query{to: node.Addr, id: node.ID, known: true, family: h.family}, krpc.FindNode)
}

// tell records an address at which a peer says that there is a node. A flood of peers, or of ports of one, has us ask few of them.
func (c *core) tell(now time.Time, a netip.AddrPort) {
	if c.told.left(now) < 1 || c.met.has(now, a) {
		return
	}
	c.told.spend(now, 1)
	c.met.add(now, a)
	c.addNode(now, a)
}

// addNode records an address at which there is said to be a node.
func (c *core) addNode(now time.Time, a netip.AddrPort) {
	f, ok := familyOf(a)
	if !ok || c.fams[f] == nil || !c.allowed(a) || c.dead.has(now, a) {
		return
	}
	h := c.fams[f]
	if len(h.greeted) >= maxGreeted || h.table.has(a) || slices.Contains(h.greeted, a) || c.queries.to(a) {
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

// overheard adds the nodes that an answer to upkeep names to those that wait to be asked.
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
