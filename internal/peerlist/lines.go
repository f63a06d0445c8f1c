package peerlist

import (
	"net/netip"
	"slices"
	"time"
)

const (
	// waitsForPlace is how long an address waits for a place after it last dialled us, and keepsTurn how long it keeps its turn: a peer that
	// was refused a few times may not dial before a source names us again.
	waitsForPlace = 200 * time.Second
	keepsTurn     = 40 * time.Minute

	// maxNetworks is how many networks may wait, maxNeighbours how many prefixes of one, or addresses of a prefix, and maxWithin how many of
	// these in all networks. Those that come when as many wait are not remembered, and have no turn before these: of several such ones,
	// the first to dial comes next.
	maxNetworks   = 4096
	maxNeighbours = 256
	maxWithin     = 4096
	forgetEvery   = 10 * time.Second // as long as so many wait, those that wait no longer are looked for
)

// A line is the order in which addresses get places: the next one is of the network that has waited longest, in it of the prefix that has
// waited longest, and so on. Otherwise those of one /24 that always dial could take all turns of their network. The zero value is ready.
type line struct {
	turns
	within int       // how many waited within networks when forget was last called, and all that came since
	forgot time.Time // when forget was last called
}

// lineage returns the prefixes of an address that take turns, the widest first and the address itself last.
func lineage(a netip.Addr) (path []netip.Prefix) {
	for _, l := range levelsOf(a) {
		path = append(path, l.prefix(a))
	}
	slices.Reverse(path)
	if last := path[len(path)-1]; !last.IsSingleIP() {
		path = append(path, netip.PrefixFrom(a.WithZone(""), a.BitLen()))
	}
	return path
}

// ahead returns how many wait before an address: networks before its own, and those of each of its prefixes before the next one. It counts
// to most.
func (l *line) ahead(path []netip.Prefix, most int, now time.Time) (n int) {
	for t := &l.turns; len(path) > 0; path = path[1:] {
		n += t.ahead(path[0], most-n, now)
		w := t.waiter(path[0])
		if w == nil || n >= most {
			break
		}
		t = &w.within
	}
	return n
}

// wait has an address wait behind those that wait already, or longer.
func (l *line) wait(path []netip.Prefix, now time.Time) {
	t, isFull := &l.turns, func() bool { return l.order.Len() >= maxNetworks }
	for k, prefix := range path {
		if !t.has(prefix) {
			if isFull() && now.Sub(l.forgot) >= forgetEvery {
				l.forget(now)
				l.within, l.forgot = l.size()-l.order.Len(), now
			}
			if isFull() {
				return
			}
			l.within += min(k, 1)
		}
		t.keeps = keepsTurn
		t.wait(prefix, now.Add(waitsForPlace))
		t = &t.waiter(prefix).within
		isFull = func() bool { return t.order.Len() >= maxNeighbours || l.within >= maxWithin }
	}
}

// servedAlong has an address wait no longer. If it got a place, those of its prefixes that others wait in go to the end of their lines.
func (t *turns) servedAlong(path []netip.Prefix, place bool) {
	e := t.place[path[0]]
	if e == nil {
		return
	}
	if len(path) > 1 {
		within := &e.Value.(*waiter).within
		if within.servedAlong(path[1:], place); within.order.Len() > 0 {
			if place {
				t.order.MoveToBack(e)
			}
			return
		}
	}
	t.served(path[0])
}

// size returns how many wait, and within these.
func (t *turns) size() (n int) {
	for e := t.order.Front(); e != nil; e = e.Next() {
		n += 1 + e.Value.(*waiter).within.size()
	}
	return n
}

// forget forgets those that no longer wait.
func (t *turns) forget(now time.Time) {
	for e := t.order.Front(); e != nil; {
		w, next := e.Value.(*waiter), e.Next()
		if w.within.forget(now); now.After(w.until) {
			t.served(w.by)
		}
		e = next
	}
}
