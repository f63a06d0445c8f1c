package dht

import (
	"net/netip"
	"time"
)

const (
	maxSpared = 512
	sparedFor = 10 * time.Minute
)

// spared remembers hosts that are not to be asked again for ten minutes.
type spared struct {
	until map[netip.AddrPort]time.Time
	ring  []netip.AddrPort // in the order in which they came, at most maxSpared
	next  int              // the oldest, once the ring is full
}

func newSpared() spared { return spared{until: make(map[netip.AddrPort]time.Time)} }

func (s *spared) add(now time.Time, a netip.AddrPort) {
	host := hostOf(a)
	if _, ok := s.until[host]; !ok {
		if len(s.ring) < maxSpared {
			s.ring = append(s.ring, host)
		} else {
			delete(s.until, s.ring[s.next])
			s.ring[s.next] = host
			s.next = (s.next + 1) % maxSpared
		}
	}
	s.until[host] = now.Add(sparedFor)
}

func (s *spared) has(now time.Time, a netip.AddrPort) bool {
	if len(s.until) == 0 {
		return false
	}
	return now.Before(s.until[hostOf(a)])
}
