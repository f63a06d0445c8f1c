package dht

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/extaddr"
	"github.com/shoal-go/torrent/internal/krpc"
)

const (
	queryRate   = 100 // of ours, a second
	queryBurst  = 400
	queryMargin = 100 // of the burst, left for what a caller waits for
	sweepEvery  = time.Minute
)

// core is a node without a socket, a clock or a goroutine: datagrams and the time go in, datagrams and results come
// out. Its owner calls receive and tick, one call at a time, sends the datagrams in out after each, and calls tick at
// the latest at the time that next returns.
type core struct {
	cfg  *Config
	rng  *rand.Rand
	fams [families]*half // nil if there is no socket of that family
	out  packets

	queries  queries
	budget   budget  // of our own queries
	told     budget  // of addresses that peers name
	lack     float64 // what a lookup waits for; 0 if none does
	searches []*search
	turn     int // of searches, who is asked first

	guard  guard
	tokens tokens
	items  itemStore
	dead   spared // hosts that did not answer us and never had, so that no victim of liars is asked in every lookup
	met    spared // hosts that peers named
	hosts  []*hostName
	lookUp []string // names of hosts that the owner is to look up, and to call resolved with
	found  []found  // what the owner is to hand on
	kept   schedule

	sweepAt time.Time
	stats   Stats
	msg     krpc.Message // the one that came last
	reply   krpc.Message // the one that goes out
	scratch []byte
	near    [maxSeeds]krpc.Contact
}

// half is our part in the DHT of one family. They share nothing but the budgets (BEP 32).
type half struct {
	family  family
	table   table
	vote    extaddr.Vote
	peers   peerStore
	boot    bootstrap
	greeted []netip.AddrPort // addresses that were named to us and are still to be asked, at most maxGreeted

	upkeepAt    time.Time
	tryAt       time.Time
	refreshAt   time.Time // when to look for those near to us again
	refreshWait time.Duration

	lastAnswer time.Time
	unanswered int // queries that failed since
}

func newCore(now time.Time, cfg *Config, rng *rand.Rand) *core {
	c := &core{
		cfg:     cfg,
		rng:     rng,
		queries: newQueries(rng),
		budget:  budget{rate: queryRate, burst: queryBurst, at: now},
		guard:   newGuard(),
		tokens:  tokens{rng: rng},
		items:   newItemStore(),
		told:    budget{rate: toldRate, burst: toldBurst, at: now},
		dead:    newSpared(),
		met:     newSpared(),
		kept:    newSchedule(),
		sweepAt: now.Add(sweepEvery),
	}
	c.configureHosts()
	c.setFamilies(now, cfg.IPv4, cfg.IPv6)
	return c
}

// setFamilies takes part in the DHTs of the families of which there is a socket.
func (c *core) setFamilies(now time.Time, v4, v6 bool) {
	for f, there := range [families]bool{ipv4: v4, ipv6: v6} {
		switch {
		case !there:
			c.fams[f] = nil
		case c.fams[f] == nil:
			c.fams[f] = &half{
				family:   family(f),
				table:    newTable(krpc.RandomID(c.rng)),
				peers:    newPeerStore(now, c.rng),
				boot:     bootstrap{next: now},
				upkeepAt: now.Add(time.Duration(c.rng.Int64N(int64(upkeepEvery)))), // so that nodes do not go in step
			}
			c.fams[f].tryAt = c.fams[f].upkeepAt
			c.fams[f].refreshSoon(now)
		}
	}
}

// networkChanged makes us known at our new addresses. v4 and v6 report which families have a socket.
func (c *core) networkChanged(now time.Time, v4, v6 bool) {
	c.setFamilies(now, v4, v6)
	c.dead, c.met = newSpared(), newSpared()
	for _, h := range c.fams {
		if h != nil {
			h.vote = extaddr.Vote{}
			h.boot.again = true
			h.boot.soon(now)
			h.refreshSoon(now)
		}
	}
	c.announceAll(now)
}

// tick does everything that is due.
func (c *core) tick(now time.Time) {
	for {
		q := c.queries.due(now)
		if q == nil {
			break
		}
		c.overdue(now, q)
	}
	for _, h := range c.fams {
		if h != nil {
			c.greet(now, h)
			c.bootstrap(now, h)
			c.upkeep(now, h)
			c.try(now, h)
		}
	}
	if !now.Before(c.sweepAt) {
		c.sweep(now)
	}
	c.startKept(now)
	c.pump(now)
}

// next is when tick is to be called, at the latest.
func (c *core) next(now time.Time) time.Time {
	next := c.sweepAt
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	sooner(c.queries.next())
	for _, h := range c.fams {
		if h != nil {
			sooner(h.upkeepAt)
			sooner(h.tryAt)
			if c.wantsNodes(h) {
				sooner(h.boot.next)
			}
		}
	}
	if c.lack > 0 {
		sooner(c.budget.when(now, c.lack))
	}
	sooner(c.nextKept(now))
	return next
}

func (c *core) sweep(now time.Time) {
	c.sweepAt = now.Add(sweepEvery)
	c.guard.sweep(now)
	c.items.sweep(now)
	for _, h := range c.fams {
		if h != nil {
			h.peers.sweep(now)
		}
	}
}

// receive takes a datagram, which is not referred to afterwards.
func (c *core) receive(now time.Time, p []byte, from netip.AddrPort) {
	c.stats.BytesReceived += int64(len(p))
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	f, ok := familyOf(from)
	if !ok || c.fams[f] == nil || !c.allowed(from) || c.msg.Parse(p) != nil {
		c.stats.Dropped++
		return
	}
	h, m := c.fams[f], &c.msg
	if m.Has&krpc.HasID != 0 && c.isUs(m.ID) {
		c.stats.Dropped++
		return
	}
	if m.Kind == krpc.Query {
		c.asked(now, h, m, from)
		return
	}
	q := c.queries.take(m.TID, from)
	if q == nil || q.family != f {
		c.stats.Dropped++
		return
	}
	if m.Kind == krpc.Failure {
		c.refused(q, m)
	} else {
		c.answered(now, h, q, m)
	}
	c.pump(now)
}

func (c *core) allowed(a netip.AddrPort) bool { return c.cfg.Allow == nil || c.cfg.Allow(a.Addr()) }

// isUs reports whether an id is ours in either family.
func (c *core) isUs(id ID) bool {
	for _, h := range c.fams {
		if h != nil && h.table.self == id {
			return true
		}
	}
	return false
}

// usable reports whether a node of the half's family may be at an address that a node at from names.
func (c *core) usable(now time.Time, h *half, from, a netip.AddrPort) bool {
	f, ok := familyOf(a)
	return ok && f == h.family && mayName(from, a) && c.allowed(a) && !c.dead.has(now, a)
}

// ask sends a query, whose arguments are in reply but for what every query has; or not, if the budget is spent.
func (c *core) ask(now time.Time, q *query, method string) {
	if c.budget.left(now) < 1 {
		c.reply = krpc.Message{}
		return
	}
	c.budget.spend(now, 1)
	h := c.fams[q.family]
	m := &c.reply
	m.Kind, m.TID, m.Method, m.Version = krpc.Query, c.queries.add(now, q), []byte(method), c.version()
	m.ReadOnly = c.cfg.ReadOnly
	m.Has |= krpc.HasID
	m.ID = h.table.self
	c.stats.QueriesSent++
	c.send(q.to)
}

// send sends the message in reply, and leaves that empty.
func (c *core) send(to netip.AddrPort) {
	c.encode()
	c.flush(to)
}

// encode writes reply into scratch.
func (c *core) encode() { c.scratch = c.reply.Append(c.scratch[:0]) }

// flush sends what is in scratch, and leaves reply empty.
func (c *core) flush(to netip.AddrPort) {
	c.out.add(c.scratch, to)
	c.stats.BytesSent += int64(len(c.scratch))
	c.reply = krpc.Message{Nodes: c.reply.Nodes[:0], Nodes6: c.reply.Nodes6[:0], Values: c.reply.Values[:0]}
}

func (c *core) version() []byte {
	if c.cfg.Version == "" {
		return nil
	}
	return []byte(c.cfg.Version)
}

// answered takes a response to a query of ours.
func (c *core) answered(now time.Time, h *half, q *query, m *krpc.Message) {
	c.stats.AnswersReceived++
	wasAlone := h.table.size == 0 || !h.connected()
	h.lastAnswer, h.unanswered = now, 0
	if m.Has&krpc.HasID == 0 {
		if q.walk != nil {
			q.walk.failed(q)
		}
		return
	}
	contact := krpc.Contact{ID: m.ID, Addr: q.to}
	// Nodes that we know only from others have no vote: they may exist only to vote.
	chosen := !q.known || q.walk == nil && q.id == m.ID && h.table.has(q.to)
	if !q.router {
		h.table.answered(now, contact, now.Sub(q.sent), q.known && q.id != m.ID)
	}
	if wasAlone {
		h.boot.soon(now) // there is a network again
	}
	if m.IP.IsValid() && chosen && h.vote.Cast(networkOf(q.to), m.IP.Addr().Unmap(), verifiedID(m.ID, q.to.Addr())) {
		c.moved(now, h)
	}
	switch {
	case q.walk != nil && q.store:
		q.walk.stored(q)
	case q.walk != nil:
		c.walkAnswered(now, h, q, m)
	default:
		c.overheard(now, h, q.to, m)
	}
}

// located takes what a router says of our external address.
func (c *core) located(now time.Time, a netip.Addr) {
	f, ok := familyOf(netip.AddrPortFrom(a, 1))
	if ok && c.fams[f] != nil && c.fams[f].vote.Route(a) {
		c.moved(now, c.fams[f])
	}
}

// moved takes an id that follows from our external address (BEP 42), and makes it known to the nodes near it.
func (c *core) moved(now time.Time, h *half) {
	if verifiedID(h.table.self, h.vote.Winner()) {
		return
	}
	h.table.rename(secureID(h.vote.Winner(), c.rng))
	h.boot.again = true
	h.boot.soon(now)
	h.refreshSoon(now)
}

// refused takes an error that a node answers with. It shows at least that the node is alive.
func (c *core) refused(q *query, m *krpc.Message) {
	c.stats.AnswersReceived++
	switch {
	case q.walk != nil && q.store:
		q.walk.refused(q, m)
	case q.walk != nil:
		q.walk.failed(q)
	}
}

// unanswered counts against a node that it did not answer, unless no other node has answered since: then we may be
// the ones that cannot be reached.
func (c *core) unanswered(now time.Time, q *query) {
	h := c.fams[q.family]
	if h == nil {
		return
	}
	h.unanswered++
	if h.lastAnswer.Before(q.sent) || q.router {
		return
	}
	if !h.table.has(q.to) {
		c.dead.add(now, q.to)
	}
	h.table.failed(q.to)
}

// overdue takes a query that has come to its next stage.
func (c *core) overdue(now time.Time, q *query) {
	if q.stage == failed {
		c.stats.TimedOut++
		c.unanswered(now, q)
	}
	if q.walk != nil {
		q.walk.overdue(q)
	}
}
