package peerlist

import (
	"net/netip"
	"slices"
	"time"
)

const (
	// waitsForPlace is how long an address waits for a place after it last dialled us, and keepsTurn how long it keeps its turn
	// after that: a peer that was refused a few times may not dial before a source names us again.
	waitsForPlace = 200 * time.Second
	keepsTurn     = 40 * time.Minute

	// maxNetworks is how many networks may wait. Those that come when as many do are not remembered, and have no turn before
	// these: of several such ones, the first to dial comes next. maxWithin is how many prefixes of networks, and addresses, are
	// remembered in all. If there are as many, a network that has its part of these gets no more, and for one that has less those
	// that have most lose their order.
	maxNetworks = 4096
	maxWithin   = 4096

	// countEvery is how often those that wait within networks are counted while there are too many, and roomMade for how many there
	// is room once a network has lost its order. To count them for each newcomer would cost more than the rest of its connection.
	countEvery = time.Second
	roomMade   = maxWithin / 16
)

// A line is the order in which addresses get places: the next one is of the network that has waited longest, in it of the prefix
// that has waited longest, and so on. Otherwise those of one /24 that always dial could take all turns of their network. Networks
// that are late come after the others. The zero value is ready.
type line struct {
	turns             // of networks
	within  int       // how many waited within networks when they were last counted, and all that came since
	counted time.Time // when that was
	swept   time.Time // when the networks of which none waits were last forgotten
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
func (l *line) ahead(path []netip.Prefix, late bool, most int, now time.Time) (n int) {
	for t := &l.turns; len(path) > 0; path, late = path[1:], false {
		n += t.ahead(path[0], late, most-n, now)
		w := t.waiter(path[0])
		if w == nil {
			break
		}
		t = &w.within
	}
	return n
}

// wait has an address wait behind those that wait already, or longer.
func (l *line) wait(path []netip.Prefix, late bool, now time.Time) {
	if l.order.Len() >= maxNetworks && !l.has(path[0]) {
		if now.Sub(l.swept) >= countEvery {
			l.swept = now
			for range l.all(now.Add(keepsTurn)) { // forgets those of which none waits
			}
		}
		if l.order.Len() >= maxNetworks {
			return
		}
	}
	network := l.join(path[0])
	network.late = late
	l.waitWithin(network, network, path[1:], now)
}

// waitWithin has an address wait within one of its prefixes. A prefix waits only as long as the address in it that is next. If
// others could renew it, those that dial one after another would keep it first in line and never take its turn.
func (l *line) waitWithin(network, w *waiter, path []netip.Prefix, now time.Time) {
	w.kept = now.Add(waitsForPlace + keepsTurn)
	isNext := true
	if len(path) > 0 {
		if t := &w.within; t.has(path[0]) || l.hasRoom(network, now) {
			if !t.has(path[0]) {
				l.within++
				network.size++
			}
			l.waitWithin(network, t.join(path[0]), path[1:], now)
		}
		isNext = w.within.ahead(path[0], false, 1, now) == 0
	}
	if isNext {
		w.until = now.Add(waitsForPlace)
	}
}

// hasRoom reports whether one more may wait within a network, and makes room for it and for some others.
func (l *line) hasRoom(network *waiter, now time.Time) bool {
	if l.within >= maxWithin && now.Sub(l.counted) >= countEvery {
		l.count(now)
	}
	switch {
	case l.within < maxWithin:
		return true
	case network.size*l.order.Len() >= maxWithin:
		return false
	}
	most := 0
	for w := range l.each() {
		most = max(most, w.size)
	}
	for w := range l.each() {
		if w.size == most && l.within > maxWithin-roomMade {
			l.within -= most
			w.within, w.size = turns{}, 0
		}
	}
	return true
}

// count counts those that wait within networks.
func (l *line) count(now time.Time) {
	l.within, l.counted = 0, now
	for w := range l.each() {
		w.size = w.within.size()
		l.within += w.size
	}
}

// leave has an address wait no longer. If it got a place, those of its prefixes that others wait in go to the end of their lines.
func (t *turns) leave(path []netip.Prefix, place bool) {
	e := t.place[path[0]]
	if e == nil {
		return
	}
	if len(path) > 1 {
		within := &e.Value.(*waiter).within
		if within.leave(path[1:], place); within.order.Len() > 0 {
			if place {
				t.order.MoveToBack(e)
			}
			return
		}
	}
	t.served(path[0])
}

// size returns how many wait or keep their turns, and within these.
func (t *turns) size() (n int) {
	for w := range t.each() {
		n += 1 + w.within.size()
	}
	return n
}
