package dht

import (
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/heaps"
	"github.com/shoal-go/torrent/internal/krpc"
)

const (
	announceEvery = 15 * time.Minute
	hurryAfter    = time.Minute // at the soonest, and then later and later
	maxKept       = 16          // torrents that are looked up at a time
)

// Torrent describes an announce.
type Torrent struct {
	Hash ID
	Port uint16 // on which we take peers; if it is 0, and no port implied, peers are looked up and nothing announced

	// ImpliedPort makes other nodes use the port that our datagrams come from (BEP 5): behind a NAT that is the one
	// by which uTP reaches us.
	ImpliedPort bool
	Seed        bool // we have all of it (BEP 33); seeds are not asked for then
}

// kept is a torrent in the schedule.
type kept struct {
	Torrent
	found   func(by netip.Addr, peers []netip.AddrPort)
	due     time.Time
	last    time.Time     // when it was last looked up
	gap     time.Duration // what is to lie between that and a hurried lookup
	hurried bool          // hurry was called since then
	spread  bool          // its place among the others was drawn at random
	far     bool          // the next lookup begins far from the torrent, as every other does
	search  *search       // under way, or nil
	index   int           // in the schedule, or -1
}

// schedule is the torrents by when they are due, those first that were never looked up: with very many there may not be enough
// queries, and they would wait behind all that are overdue. Of those that come together as many are looked up at a time as
// there are queries for. Each comes again at a time drawn from the next quarter of an hour, so that they spread over it,
// and from then on a quarter of an hour after it was.
type schedule struct {
	heaps.Heap[*kept]
	running int

	// Of changes of our address or of the network, after which all torrents are looked up:
	allAt  time.Time     // when they were last due for one, or will be
	allGap time.Duration // what is to lie between that and the next time
}

func newSchedule() schedule {
	return schedule{Heap: heaps.New(
		func(a, b *kept) bool {
			if never := a.last.IsZero(); never != b.last.IsZero() {
				return never
			}
			return a.due.Before(b.due)
		},
		func(k *kept, at int) { k.index = at },
	)}
}

// keep takes a torrent, which is due at once.
func (c *core) keep(now time.Time, t Torrent, found func(by netip.Addr, peers []netip.AddrPort)) *kept {
	k := &kept{Torrent: t, found: found, due: now, gap: hurryAfter}
	c.kept.Push(k)
	return k
}

// forget drops a torrent.
func (c *core) forget(k *kept) {
	if k.index >= 0 {
		c.kept.Remove(k.index)
	}
	if k.search != nil {
		c.cancel(k.search)
		k.search = nil
		c.kept.running--
	}
}

// hurry has a torrent looked up soon, since its peers are few: a minute after the last time, and each time
// in a row twice as long after it, up to announceEvery.
func (c *core) hurry(k *kept) {
	if k.index < 0 {
		return
	}
	k.hurried = true
	due := k.last.Add(k.gap)
	if k.last.IsZero() || !due.Before(k.due) {
		return
	}
	k.due = due
	k.gap = min(2*k.gap, announceEvery)
	c.kept.Fix(k.index)
}

// online reports whether there is a node to ask.
func (c *core) online() bool {
	for _, h := range c.fams {
		if h != nil && h.table.size > 0 && h.ready() {
			return true
		}
	}
	return false
}

// startKept begins the lookups that are due.
func (c *core) startKept(now time.Time) {
	for c.kept.running < maxKept && c.kept.Len() > 0 && !now.Before(c.kept.First().due) && c.online() {
		if c.budget.left(now) < 1+queryMargin {
			return
		}
		k := c.kept.Pop()
		if !k.hurried {
			k.gap = hurryAfter
		}
		k.last, k.hurried = now, false
		k.search = &search{target: k.Hash, method: krpc.GetPeers, low: true, noSeed: k.Seed, far: k.far}
		k.far = !k.far
		k.search.found = func(by netip.Addr, peers []netip.AddrPort) {
			c.found = append(c.found, found{k, by, peers})
		}
		k.search.store = announceTo(k.Torrent)
		k.search.ended = func(now time.Time) {
			c.kept.running--
			c.keepAgain(k)
			c.found = append(c.found, found{kept: k})
		}
		c.kept.running++
		c.start(k.search, c.fams[:]...)
	}
}

// keepAgain puts a torrent back into the schedule: soon, if no node answered.
func (c *core) keepAgain(k *kept) {
	wait := announceEvery
	if k.search.answers == 0 {
		wait = hurryAfter
	}
	after := wait*9/10 + time.Duration(c.rng.Int64N(int64(wait/5)))
	if !k.spread && wait == announceEvery {
		k.spread, after = true, hurryAfter+time.Duration(c.rng.Int64N(int64(wait)))
	}
	k.search = nil
	k.due = k.last.Add(after)
	c.kept.Push(k)
}

// nextKept is when the next torrent may be looked up, or the zero time.
func (c *core) nextKept(now time.Time) time.Time {
	if c.kept.running >= maxKept || c.kept.Len() == 0 || !c.online() {
		return time.Time{}
	}
	due := c.kept.First().due
	if now.Before(due) {
		return due
	}
	return c.budget.when(now, 1+queryMargin)
}

// found are peers that are to be handed to a torrent; none at the end of a lookup.
type found struct {
	kept  *kept
	by    netip.Addr
	peers []netip.AddrPort
}

// announceTo makes the query by which a torrent is announced, nil if it is not to be.
func announceTo(t Torrent) func(*krpc.Message, *candidate) {
	if t.Port == 0 && !t.ImpliedPort {
		return nil
	}
	return func(m *krpc.Message, at *candidate) {
		m.Has |= krpc.HasTarget | krpc.HasPort
		m.Target, m.Port, m.ImpliedPort, m.Seed, m.Token = t.Hash, int64(t.Port), t.ImpliedPort, t.Seed, at.token
	}
}

// announceAll looks all torrents up and announces them again, because our address has changed: at once, but after several changes in a row
// not before a minute since the last time, and each time twice as long after it, up to announceEvery.
func (c *core) announceAll(now time.Time) {
	s := &c.kept
	if now.Before(s.allAt) {
		return // they will be looked up then
	}
	if now.Sub(s.allAt) >= announceEvery {
		s.allGap = hurryAfter
		s.allAt = now
	} else {
		if s.allAt = s.allAt.Add(s.allGap); s.allAt.Before(now) {
			s.allAt = now
		}
		s.allGap = min(2*s.allGap, announceEvery)
	}
	for k := range s.All() {
		if s.allAt.Before(k.due) {
			k.due = s.allAt
		}
	}
	s.FixAll()
}
