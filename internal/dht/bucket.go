package dht

import (
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/krpc"
)

const (
	bucketSize = 8
	maxFails   = 3 // queries that a node may leave unanswered, if there is no other for its place
)

// capacity is how many nodes bucket i holds. The first ones, which cover most of the space, hold more, so
// that lookups start nearer to where they go.
func capacity(i int) int { return max(bucketSize, 128>>i) }

// bucket is a part of the routing table. Of a network there is one node in it, and one of an id.
type bucket struct {
	live    []entry // answered us
	waiting []entry // at most bucketSize: not asked yet, or there is no room
}

// entry is a node of the routing table.
type entry struct {
	krpc.Contact
	site     site
	rtt      time.Duration // of its answers, about; 0 until there is one
	asked    time.Time     // when it was chosen by upkeep, or came
	heard    time.Time     // when it last answered, or asked us
	fails    uint8         // queries in a row that it did not answer
	verified bool          // its id follows from its address (BEP 42)
}

func newEntry(c krpc.Contact) entry {
	return entry{Contact: c, site: siteOf(c.Addr), verified: verifiedID(c.ID, c.Addr.Addr())}
}

func (e *entry) answered(now time.Time, rtt time.Duration) {
	rtt = max(rtt, 1)
	if e.rtt == 0 {
		e.rtt = rtt
	} else {
		e.rtt += (rtt - e.rtt) / 4
	}
	e.heard, e.fails = now, 0
}

// order compares two nodes by how soon they are to be evicted: stale ones first, then those whose id does
// not follow from their address, then the slowest.
func (e *entry) order(other *entry) int {
	switch {
	case e.fails != other.fails:
		return int(e.fails) - int(other.fails)
	case e.verified != other.verified:
		if other.verified {
			return 1
		}
		return -1
	}
	return int(min(max(e.rtt-other.rtt, -1), 1))
}

// yields reports whether the node makes room for another. A node that is merely slower stays, unless the other takes
// less than half the time, because a node that has been here for long is more reliable.
func (e *entry) yields(to *entry) bool {
	switch {
	case e.fails != to.fails:
		return e.fails > to.fails
	case e.verified != to.verified:
		return to.verified
	}
	return e.rtt > 2*to.rtt
}

// find is the entry of a host that is in the bucket or waits for it.
func (b *bucket) find(host netip.AddrPort) (e *entry, live bool) {
	for i := range b.live {
		if e := &b.live[i]; e.Addr.Addr() == host.Addr() && hostOf(e.Addr) == host {
			return e, true
		}
	}
	for i := range b.waiting {
		if e := &b.waiting[i]; e.Addr.Addr() == host.Addr() && hostOf(e.Addr) == host {
			return e, false
		}
	}
	return nil, false
}

// rival is an entry of the same network or the same id, which keeps e out.
func (b *bucket) rival(e *entry) *entry {
	for _, list := range [2][]entry{b.live, b.waiting} {
		for i := range list {
			if other := &list[i]; other.ID == e.ID || sameNetwork(other.Addr, e.Addr) {
				return other
			}
		}
	}
	return nil
}

// worst is the first to be evicted of some nodes.
func worst(nodes []entry) *entry {
	worst := &nodes[0]
	for i := range nodes {
		if nodes[i].order(worst) > 0 {
			worst = &nodes[i]
		}
	}
	return worst
}

// ofSite is how many of some nodes are of a site.
func ofSite(nodes []entry, s site) (n int) {
	for i := range nodes {
		if nodes[i].site == s {
			n++
		}
	}
	return n
}

// displaced is the one of some nodes, which have all places, that makes room for another, or nil. The nodes of one site keep a
// quarter of the places if nodes of other sites want the rest: they may be as many, as quick and as lasting as their owner likes.
func displaced(nodes []entry, e *entry) *entry {
	last, share := worst(nodes), len(nodes)/4
	full := e.site != 0 && ofSite(nodes, e.site) >= share
	if last.yields(e) && (!full || last.fails > 0) {
		return last
	}
	if e.site == 0 {
		return nil
	}
	var out *entry // the worst of those of its own site if that is full, else of sites that have more than they keep
	for i := range nodes {
		o := &nodes[i]
		if out != nil && o.order(out) <= 0 || o.site == 0 || full != (o.site == e.site) {
			continue
		}
		if full || ofSite(nodes, o.site) > share {
			out = o
		}
	}
	if out != nil && (out.yields(e) || !full && (e.verified || !out.verified)) {
		return out
	}
	return nil
}

// replacement is the best of the nodes that wait and have answered, or nil. Those of sites that have many nodes here come last.
func (b *bucket) replacement() (best *entry) {
	crowd := 0
	for i := range b.waiting {
		e := &b.waiting[i]
		if e.rtt == 0 {
			continue
		}
		n := 0
		if e.site != 0 && ofSite(b.live, e.site) > len(b.live)/4 {
			n = 1
		}
		if best == nil || n < crowd || n == crowd && e.order(best) < 0 {
			best, crowd = e, n
		}
	}
	return best
}

// suspect makes the nodes of the bucket be asked soon, unless they were asked just now.
func (b *bucket) suspect(now time.Time) {
	for i := range b.live {
		if e := &b.live[i]; now.Sub(e.asked) >= 5*time.Minute {
			e.asked = time.Time{}
		}
	}
}

// remove takes an entry out of either list.
func (b *bucket) remove(e *entry) {
	for _, list := range [2]*[]entry{&b.live, &b.waiting} {
		l := *list
		for i := range l {
			if &l[i] == e {
				copy(l[i:], l[i+1:])
				l[len(l)-1] = entry{}
				*list = l[:len(l)-1]
				return
			}
		}
	}
}
