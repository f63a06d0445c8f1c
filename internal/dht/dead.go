package dht

import (
	"net/netip"
	"time"
)

const (
	maxDead  = 512
	deadLife = 10 * time.Minute
)

// dead remembers hosts that did not answer us and never had. Lookups leave them out for ten minutes, so that a victim
// named by liars is not asked in every lookup, and dead nodes cost less.
type dead struct {
	until map[netip.AddrPort]time.Time
	ring  []netip.AddrPort // in the order in which they came, at most maxDead
	next  int              // the oldest, once the ring is full
}

func newDead() dead { return dead{until: make(map[netip.AddrPort]time.Time)} }

func (d *dead) add(now time.Time, a netip.AddrPort) {
	host := hostOf(a)
	if _, ok := d.until[host]; !ok {
		if len(d.ring) < maxDead {
			d.ring = append(d.ring, host)
		} else {
			delete(d.until, d.ring[d.next])
			d.ring[d.next] = host
			d.next = (d.next + 1) % maxDead
		}
	}
	d.until[host] = now.Add(deadLife)
}

func (d *dead) has(now time.Time, a netip.AddrPort) bool {
	if len(d.until) == 0 {
		return false
	}
	return now.Before(d.until[hostOf(a)])
}
