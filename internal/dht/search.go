package dht

import (
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/krpc"
)

const (
	maxSeeds = 16   // nodes of our own table that a lookup begins with
	maxToken = 64   // bytes of a token of others
	maxFound = 2000 // peers of a family that a lookup hands on
	maxLate  = 20   // of them from one answer, once there is half of that
	minNodes = 3    // fewer, and we are not there yet
	maxBlind = 64   // addresses that a lookup begins with, of nodes whose id is not known
)

// search is one thing to be done: a lookup in each family, and then perhaps to store at the nodes that it
// found. Its functions are called by the core, one at a time, and must call nothing of it.
type search struct {
	target ID
	method string // find_node, get_peers or get
	low    bool   // it may wait, since there will be another
	both   bool   // asks for nodes of both families
	far    bool   // it begins with nodes far from target
	noSeed bool   // BEP 33
	scrape bool   // BEP 33

	store func(m *krpc.Message, at *candidate)        // fills in the query to store at a node; nil if nothing is to be stored
	take  func(m *krpc.Message) (enough bool)         // sees each answer
	found func(by netip.Addr, peers []netip.AddrPort) // sees the peers of an answer that are new, and the node that named them
	ended func(now time.Time)

	walks     [families]*walk
	over      bool
	answers   int      // nodes that answered
	stores    int      // nodes that stored
	refusal   *Refusal // of a node that did not, a conflict if there was one
	conflicts int      // nodes that did not because they have another version
}

// walk is the part of a search in one family.
type walk struct {
	search   *search
	family   family
	state    walkState
	lookup   lookup
	underWay int                         // queries of the lookup
	quick    int                         // of them, those that are not slow yet
	seen     map[netip.AddrPort]struct{} // peers found, at most maxFound

	targets []candidate // that are still to be asked to store
	storing int         // queries to store that may be answered soon
}

type walkState uint8

const (
	walkWaits walkState = iota // for nodes to begin with
	walkLooks
	walkStores
	walkOver
)

// start begins a search in the families given.
func (c *core) start(s *search, in ...*half) {
	for _, h := range in {
		if h != nil {
			s.walks[h.family] = &walk{search: s, family: h.family}
		}
	}
	c.searches = append(c.searches, s)
	c.stats.Lookups++
}

// cancel ends a search silently.
func (c *core) cancel(s *search) {
	if s.over {
		return
	}
	s.over = true
	c.searches = slices.DeleteFunc(c.searches, func(o *search) bool { return o == s })
}

// pump lets the searches send their queries in turn, as far as the budget allows, and ends those that are done.
func (c *core) pump(now time.Time) {
	c.lack = 0
	for progress := true; progress; {
		progress = false
		for i := range c.searches {
			s := c.searches[(i+c.turn)%len(c.searches)]
			for _, w := range s.walks {
				if w != nil && c.step(now, w) {
					progress = true
				}
			}
		}
		if len(c.searches) > 0 {
			c.turn = (c.turn + 1) % len(c.searches)
		}
	}
	c.searches = slices.DeleteFunc(c.searches, func(s *search) bool {
		for _, w := range s.walks {
			if w != nil && w.state != walkOver {
				return false
			}
		}
		if !s.over {
			s.over = true
			if s.ended != nil {
				s.ended(now)
			}
		}
		return true
	})
}

// step goes on with a walk, and reports whether a query was sent.
func (c *core) step(now time.Time, w *walk) bool {
	h := c.fams[w.family]
	if h == nil || w.search.over {
		w.state = walkOver
	}
	switch w.state {
	case walkWaits:
		if !h.ready() {
			return false
		}
		c.seed(h, w)
		fallthrough
	case walkLooks:
		if w.lookup.done(w.underWay) {
			w.state = walkStores
			if w.search.store != nil {
				for _, n := range w.lookup.nearest() {
					w.targets = append(w.targets, *n)
				}
			}
			return c.step(now, w)
		}
		if w.quick >= lookupWidth || !c.affords(now, w.search) {
			return false
		}
		to, known, ok := w.lookup.next()
		if !ok {
			return false
		}
		c.askLookup(now, w, to, known)
		return true
	case walkStores:
		if len(w.targets) == 0 {
			if w.storing == 0 {
				w.state = walkOver
			}
			return false
		}
		if !c.affords(now, w.search) {
			return false
		}
		w.search.store(&c.reply, &w.targets[0])
		q := &query{to: w.targets[0].Addr, id: w.targets[0].ID, known: true, family: w.family, walk: w, store: true}
		w.targets = w.targets[1:]
		w.storing++
		c.ask(now, q, storeMethod[w.search.method])
		return true
	}
	return false
}

// storeMethod is what follows a lookup.
var storeMethod = map[string]string{krpc.GetPeers: krpc.AnnouncePeer, krpc.Get: krpc.Put}

// affords reports whether the budget has a query for the search, and records it if not.
func (c *core) affords(now time.Time, s *search) bool {
	need := 1.0
	if s.low {
		need += queryMargin
	}
	if c.budget.left(now) >= need {
		return true
	}
	if c.lack == 0 || need < c.lack {
		c.lack = need
	}
	return false
}

// ready reports whether a lookup may begin: there are nodes to ask, or it is known that there are none.
func (h *half) ready() bool {
	if !h.alone() {
		return true
	}
	return h.boot.search == nil && h.boot.tried
}

// seed begins a lookup with the nodes of our own table: those nearest to the target, or to a random id in the half of the space
// that the target is not in. Who stays near a target for long, at the addresses of a few dozen networks, may have all places nearest
// to it in our table, though many nodes that we do not know are nearer.
func (c *core) seed(h *half, w *walk) {
	w.state = walkLooks
	w.lookup.target, w.lookup.self = w.search.target, h.table.self
	at := w.search.target
	if w.search.far {
		at = krpc.WithCommon(c.rng, at, 0)
	}
	near := h.table.closest(at, c.near[:0], func(e *entry) bool { return e.fails == 0 && c.allowed(e.Addr) })
	if len(near) < minNodes {
		near = h.table.closest(at, c.near[:0], func(e *entry) bool { return c.allowed(e.Addr) })
	}
	for _, n := range near {
		w.lookup.add(n)
	}
}

// askLookup sends a lookup's query.
func (c *core) askLookup(now time.Time, w *walk, to krpc.Contact, known bool) {
	s, m := w.search, &c.reply
	m.Has |= krpc.HasTarget
	m.Target, m.NoSeed, m.Scrape = s.target, s.noSeed, s.scrape
	if s.both && c.fams[ipv4] != nil && c.fams[ipv6] != nil {
		m.Has |= krpc.HasWant
		m.Want4, m.Want6 = true, true
	}
	w.underWay++
	w.quick++
	c.ask(now, &query{to: to.Addr, id: to.ID, known: known, family: w.family, walk: w, router: c.isRouter(to.Addr)}, s.method)
}

// walkAnswered takes an answer to a lookup's query.
func (c *core) walkAnswered(now time.Time, h *half, q *query, m *krpc.Message) {
	w, s := q.walk, q.walk.search
	w.leave(q)
	if w.state != walkLooks || s.over {
		return
	}
	namer := -1
	if q.router {
		w.lookup.mark(q.to, candidateFailed) // if a node named it: it is of use for the nodes that it names alone
	} else {
		n, number := w.lookup.answered(krpc.Contact{ID: m.ID, Addr: q.to}, q.known)
		if n == nil {
			w.lookup.mark(q.to, candidateFailed)
			return
		}
		namer = number
		if len(m.Token) > 0 && len(m.Token) <= maxToken {
			n.token = slices.Clone(m.Token)
		}
		if m.Has&krpc.HasSeq != 0 {
			n.seq = new(m.Seq)
		}
	}
	s.answers++

	nodes, crossed := m.Nodes, m.Nodes6
	if w.family == ipv6 {
		nodes, crossed = crossed, nodes
	}
	w.lookup.named(namer, q.to, slices.DeleteFunc(nodes, func(n krpc.Contact) bool { return !c.usable(now, h, q.to, n.Addr) }))
	if other := c.fams[1-w.family]; s.both && other != nil {
		for _, n := range crossed[:min(len(crossed), maxNamed)] {
			if c.usable(now, other, q.to, n.Addr) {
				c.addNode(now, n.Addr)
			}
		}
	}
	if s.found != nil {
		c.findPeers(w, q.to, m.Values)
	}
	if s.take != nil && s.take(m) {
		for _, w := range s.walks {
			if w != nil {
				w.state = walkOver
			}
		}
	}
}

// findPeers delivers the peers of a walk that were not found before. A node that invents many peers leaves room for those of
// the nearest nodes, which come last. Nodes of one family, where addresses cost less, leave those of the other all of theirs.
func (c *core) findPeers(w *walk, from netip.AddrPort, peers []netip.AddrPort) {
	most := maxPeers4
	if len(w.seen) >= maxFound/2 {
		most = maxLate
	}
	n := 0
	for _, p := range peers[:min(len(peers), most)] {
		f, ok := familyOf(p)
		if _, again := w.seen[p]; !ok || f != w.family || !mayName(from, p) || again || len(w.seen) >= maxFound {
			continue
		}
		if w.seen == nil {
			w.seen = make(map[netip.AddrPort]struct{})
		}
		w.seen[p] = struct{}{}
		peers[n] = p
		n++
	}
	if n > 0 {
		w.search.found(from.Addr(), slices.Clone(peers[:n]))
	}
}

// leave records that a query of the lookup is no longer under way.
func (w *walk) leave(q *query) {
	w.underWay--
	if q.stage == underWay {
		w.quick--
	}
}

// overdue records that a query has come to another stage.
func (w *walk) overdue(q *query) {
	switch {
	case q.store:
		if q.stage == late {
			w.storing--
		}
	case q.stage == slow:
		w.quick--
		w.lookup.mark(q.to, candidateSlow)
	case q.stage == late:
		w.lookup.mark(q.to, candidateLate)
	default:
		w.underWay--
		w.lookup.mark(q.to, candidateFailed)
	}
}

// failed records that a node answered with nothing of use.
func (w *walk) failed(q *query) {
	if q.store {
		w.answeredStore(q)
		return
	}
	w.leave(q)
	w.lookup.mark(q.to, candidateFailed)
}

// answeredStore records that a query to store was answered, whatever the answer says.
func (w *walk) answeredStore(q *query) {
	if q.stage < late {
		w.storing--
	}
}

// stored records that a node has stored.
func (w *walk) stored(q *query) {
	w.search.stores++
	w.answeredStore(q)
}

// refused records that a node would not store.
func (w *walk) refused(q *query, m *krpc.Message) {
	w.answeredStore(q)
	refusal := &Refusal{Code: m.Code, Text: string(m.Text[:min(len(m.Text), 100)])}
	if refusal.IsConflict() {
		w.search.conflicts++
	}
	if w.search.refusal == nil || refusal.IsConflict() {
		w.search.refusal = refusal
	}
}
