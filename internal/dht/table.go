package dht

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/krpc"
)

const maxDepth = 50 // buckets; no network has as many nodes

// natLife is how long after a packet from a node its NAT may still let ours in, so that an answer does not
// show that others can reach it.
const natLife = 90 * time.Second

// table is the routing table of one family (BEP 5). Bucket i holds nodes whose ids share i leading bits
// with ours, the last one those that share more; it is split when it is full, if most of it is verified, so that a
// node that chooses its id at will cannot make its own table within ours. A node is in the table once it has answered
// us; until then, and while its bucket is full, it waits.
type table struct {
	self    ID
	buckets []bucket                 // up to maxDepth
	hosts   map[netip.AddrPort]uint8 // which bucket a host is in, or waits for
	size    int                      // nodes in it, without those that wait
}

func newTable(self ID) table {
	return table{self: self, buckets: make([]bucket, 1), hosts: make(map[netip.AddrPort]uint8)}
}

func (t *table) index(id ID) int { return min(krpc.Common(t.self, id), len(t.buckets)-1) }

// answered records that a node answered us, and takes it in if it may be. asAnother is set if it has another id than
// we were told: then it is not taken in, because either it or the node that named it lied.
func (t *table) answered(now time.Time, c krpc.Contact, rtt time.Duration, asAnother bool) {
	if c.ID == t.self {
		return
	}
	host := hostOf(c.Addr)
	if i, ok := t.hosts[host]; ok {
		b := &t.buckets[i]
		e, live := b.find(host)
		switch {
		case e.Contact == c:
			e.answered(now, rtt)
			if !live {
				known := *e
				t.remove(host)
				t.insert(known)
			}
			return
		case e.Addr == c.Addr:
			// It has another id than before: a liar, or a node that started again. Who else came into its bucket
			// with it is looked at soon.
			t.remove(host)
			if live {
				b.suspect(now)
				return
			}
		case e.rtt > 0: // another port of a node's address
			return
		default:
			t.remove(host)
		}
	}
	if asAnother {
		return
	}
	e := newEntry(c)
	e.asked = now
	e.answered(now, rtt)
	t.insert(e)
}

// insert puts a node that answered into its bucket, or has it wait. It is in neither before.
func (t *table) insert(e entry) {
	i := t.index(e.ID)
	b := &t.buckets[i]
	if rival := b.rival(&e); rival != nil {
		if rival.rtt > 0 && rival.fails == 0 {
			return
		}
		t.remove(hostOf(rival.Addr))
	}
	if len(b.live) < capacity(i) {
		b.live = append(b.live, e)
		t.hosts[hostOf(e.Addr)] = uint8(i)
		t.size++
		return
	}
	if t.maySplit(&e) {
		t.split()
		t.insert(e)
		return
	}
	if out := displaced(b.live, &e); out != nil {
		old := *out
		*out = e
		t.hosts[hostOf(e.Addr)] = uint8(i)
		delete(t.hosts, hostOf(old.Addr))
		if old.fails > 0 {
			return
		}
		e = old
	}
	t.wait(i, e)
}

// maySplit reports whether the last bucket, which is full, is to be split for a node that belongs there: if
// most of it is verified, as the node is, and not all are of the new bucket.
func (t *table) maySplit(e *entry) bool {
	last := len(t.buckets) - 1
	if t.index(e.ID) != last || len(t.buckets) == maxDepth || !e.verified {
		return false
	}
	verified, here := 0, krpc.Common(t.self, e.ID) == last
	for _, other := range t.buckets[last].live {
		if other.verified {
			verified++
		}
		here = here || krpc.Common(t.self, other.ID) == last
	}
	return here && 3*verified >= 2*len(t.buckets[last].live)
}

// split makes two of the last bucket. Those that find no room in the new one wait.
func (t *table) split() {
	last := len(t.buckets) - 1
	old := t.buckets[last]
	t.buckets[last] = bucket{}
	t.buckets = append(t.buckets, bucket{})
	t.size -= len(old.live)
	for _, e := range slices.Concat(old.live, old.waiting) {
		delete(t.hosts, hostOf(e.Addr))
	}
	slices.SortStableFunc(old.live, func(a, b entry) int { return a.order(&b) })
	for _, e := range old.live {
		if i := t.index(e.ID); len(t.buckets[i].live) < capacity(i) {
			t.buckets[i].live = append(t.buckets[i].live, e)
			t.hosts[hostOf(e.Addr)] = uint8(i)
			t.size++
		} else {
			t.wait(i, e)
		}
	}
	for _, e := range old.waiting {
		t.wait(t.index(e.ID), e)
	}
	for i := last; i <= last+1; i++ {
		t.promote(i)
	}
}

// promote lets those that wait and have answered take the places that are free.
func (t *table) promote(i int) {
	b := &t.buckets[i]
	for len(b.live) < capacity(i) {
		next := b.replacement()
		if next == nil {
			return
		}
		b.live = append(b.live, *next)
		b.remove(next)
		t.size++
	}
}

// wait has a node wait for its bucket, if there is room or another that waits is worth less.
func (t *table) wait(i int, e entry) {
	b := &t.buckets[i]
	if len(b.waiting) < bucketSize {
		b.waiting = append(b.waiting, e)
	} else {
		if e.rtt == 0 {
			return
		}
		last := displaced(b.waiting, &e)
		if at := slices.IndexFunc(b.waiting, func(w entry) bool { return w.rtt == 0 }); at >= 0 {
			last = &b.waiting[at]
		}
		if last == nil {
			return
		}
		delete(t.hosts, hostOf(last.Addr))
		*last = e
	}
	t.hosts[hostOf(e.Addr)] = uint8(i)
}

// heard records that a node may be there: it asked us, or a node that answered named it. It waits until it
// was asked itself.
func (t *table) heard(now time.Time, c krpc.Contact, asked bool) {
	if c.ID == t.self {
		return
	}
	e := newEntry(c)
	if asked {
		e.heard = now
	}
	if i, ok := t.hosts[hostOf(c.Addr)]; ok {
		if known, _ := t.buckets[i].find(hostOf(c.Addr)); asked && known.Contact == c {
			known.heard = now
		}
		return
	}
	i := t.index(c.ID)
	if b := &t.buckets[i]; len(b.waiting) < bucketSize && b.rival(&e) == nil {
		t.wait(i, e)
	}
}

// failed records that a node did not answer.
func (t *table) failed(addr netip.AddrPort) {
	host := hostOf(addr)
	i, ok := t.hosts[host]
	if !ok {
		return
	}
	b := &t.buckets[i]
	e, live := b.find(host)
	if e.Addr != addr {
		return
	}
	e.fails++
	if !live || e.fails >= maxFails || b.replacement() != nil {
		t.remove(host)
	}
}

// remove takes a host out, and lets one that waits take its place.
func (t *table) remove(host netip.AddrPort) {
	i := t.hosts[host]
	delete(t.hosts, host)
	b := &t.buckets[i]
	e, live := b.find(host)
	b.remove(e)
	if !live {
		return
	}
	t.size--
	t.promote(int(i))
}

// has reports whether a node that answered us before is at the address.
func (t *table) has(addr netip.AddrPort) bool {
	host := hostOf(addr)
	i, ok := t.hosts[host]
	if !ok {
		return false
	}
	e, _ := t.buckets[i].find(host)
	return e.Addr == addr && e.rtt > 0
}

// upkeep is the node that was asked longest ago, who counts as asked then. It says which bucket that is of,
// and whether the bucket is full.
func (t *table) upkeep(now time.Time) (c krpc.Contact, i int, full, ok bool) {
	var next *entry
	for j := len(t.buckets) - 1; j >= 0; j-- { // what is near to us matters most
		for k := range t.buckets[j].live {
			if e := &t.buckets[j].live[k]; next == nil || e.asked.Before(next.asked) {
				next, i = e, j
			}
		}
	}
	if next == nil {
		return c, 0, false, false
	}
	next.asked = now
	return next.Contact, i, len(t.buckets[i].live) == capacity(i), true
}

// untried is a node that waits for a place which is there, and was never asked; the nearest to us. It counts
// as asked then.
func (t *table) untried(now time.Time) (c krpc.Contact, ok bool) {
	for i := len(t.buckets) - 1; i >= 0; i-- {
		b := &t.buckets[i]
		if len(b.waiting) == 0 || len(b.live) == capacity(i) && worst(b.live).fails == 0 {
			continue
		}
		for j := range b.waiting {
			e := &b.waiting[j]
			if e.asked.IsZero() && (t.size < 4*bucketSize || now.Sub(e.heard) >= natLife) {
				e.asked = now
				return e.Contact, true
			}
		}
	}
	return c, false
}

// closest fills near, up to its capacity, with the nodes nearest to target for which use is true; the nearest comes
// first. No more than three in eight are there by ids that do not follow from their addresses, unless there are too
// few others: nodes that choose ids near a target would hide all honest ones.
func (t *table) closest(target ID, near []krpc.Contact, use func(*entry) bool) []krpc.Contact {
	n := cap(near)
	var space [maxSeeds]krpc.Contact
	verified, others := near[:0], space[:0:n]
	add := func(b *bucket) {
		for i := range b.live {
			e := &b.live[i]
			list := &others
			if e.verified {
				list = &verified
			}
			if last := len(*list) - 1; last+1 < n || krpc.Nearer(target, e.ID, (*list)[last].ID) {
				if use(e) {
					*list = insertNearest(target, *list, e.Contact)
				}
			}
		}
	}
	// The bucket that target is of comes first. All that share as many bits with it as we do are in those
	// beyond; and then fewer and fewer.
	i := t.index(target)
	add(&t.buckets[i])
	if len(verified) < n {
		for j := i + 1; j < len(t.buckets); j++ {
			add(&t.buckets[j])
		}
	}
	for j := i - 1; j >= 0 && len(verified) < n; j-- {
		add(&t.buckets[j])
	}
	for _, c := range others[:min(len(others), max(n-len(verified), n*3/8))] {
		if last := len(verified) - 1; last+1 < n || krpc.Nearer(target, c.ID, verified[last].ID) {
			verified = insertNearest(target, verified, c)
		}
	}
	return verified
}

// insertNearest inserts a node in the order of distance from target. If there is no room, the last one goes.
func insertNearest(target ID, near []krpc.Contact, c krpc.Contact) []krpc.Contact {
	at := len(near)
	for at > 0 && krpc.Nearer(target, c.ID, near[at-1].ID) {
		at--
	}
	if len(near) == cap(near) {
		near = near[:len(near)-1]
	}
	return slices.Insert(near, at, c)
}

// good appends the addresses of nodes that answer, last heard of first.
func (t *table) good() (nodes []netip.AddrPort) {
	var all []*entry
	for i := range t.buckets {
		for j := range t.buckets[i].live {
			if e := &t.buckets[i].live[j]; e.fails == 0 {
				all = append(all, e)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b *entry) int { return cmp.Compare(b.heard.UnixNano(), a.heard.UnixNano()) })
	for _, e := range all {
		nodes = append(nodes, e.Addr)
	}
	return nodes
}

// rename gives us another id, by which all nodes find their buckets again.
func (t *table) rename(self ID) {
	old := t.buckets
	*t = newTable(self)
	for i := range old {
		for _, e := range old[i].live {
			if e.ID != self {
				t.insert(e)
			}
		}
	}
	for i := range old {
		for _, e := range old[i].waiting {
			if e.ID == self {
				continue
			}
			if e.rtt > 0 {
				t.insert(e)
			} else if j := t.index(e.ID); t.buckets[j].rival(&e) == nil {
				t.wait(j, e)
			}
		}
	}
}
