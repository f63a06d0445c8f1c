package dht

import (
	"net/netip"
	"time"
)

const (
	maxSpared = 512
	sparedFor = 10 * time.Minute
)

// spared records hosts that are not queried again before sparedFor has passed. It holds the last maxSpared of them.
type spared struct {
	until map[netip.AddrPort]time.Time
	ring  []netip.AddrPort // the hosts in the order in which they were added, at most maxSpared
	next  int              // index of the oldest host, once the ring is full
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
