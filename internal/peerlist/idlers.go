package peerlist

import (
	"maps"
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
)

const (
	// idlerStays is how long a peer that lost its place, or left it, and had given nothing cannot displace another.
	idlerStays = 10 * time.Minute
	maxIdlers  = 4096
	sweepOver  = 64 // idlers, before those that may displace again are looked for
)

// Idlers are the addresses, or /64s, of peers that lately lost their places, or left them, and had given nothing. Each address has
// the grace of a newcomer only once. Otherwise many addresses that reconnect at once, one after the other, would leave no
// place for other peers. The zero value is ready. The download's mutex guards it.
type Idlers struct {
	lost    map[netip.Prefix]time.Time
	sweepAt int // how many there are when it is time to forget some
}

// Add records a peer that lost its place, or left it.
func (l *Idlers) Add(a netip.Addr, now time.Time) {
	if netaddr.IsLocal(a) { // any number of peers may stand behind it
		return
	}
	if len(l.lost) >= max(sweepOver, min(l.sweepAt, maxIdlers)) {
		l.sweep(now)
	}
	if l.lost == nil {
		l.lost = make(map[netip.Prefix]time.Time)
	}
	if host, _ := targetOf(a); len(l.lost) < maxIdlers {
		l.lost[host] = now
	}
}

// sweep forgets those that may displace others again. If these are most, it makes a new map, because one keeps the memory of all that
// it ever held.
func (l *Idlers) sweep(now time.Time) {
	before := len(l.lost)
	maps.DeleteFunc(l.lost, func(_ netip.Prefix, at time.Time) bool { return now.Sub(at) >= idlerStays })
	if len(l.lost) <= before/2 {
		l.lost = maps.Clone(l.lost)
	}
	l.sweepAt = 2 * len(l.lost)
}

// Has reports whether an address is one of them.
func (l *Idlers) Has(a netip.Addr, now time.Time) bool {
	host, _ := targetOf(a)
	at, ok := l.lost[host]
	return ok && now.Sub(at) < idlerStays
}
