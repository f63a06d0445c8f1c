package peerlist

import (
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
)

const (
	targetWindow = time.Minute
	// maxDialsPerTarget is how many dials of one target begin in any targetWindow, whatever the ports, so that a
	// source cannot aim many clients at it. More peers may share a local address.
	maxDialsPerTarget      = 6
	maxDialsPerLocalTarget = 30
	sweepTargetsOver       = 2048
)

// targets are the hosts that were dialled lately, by address, or by /64: each with the times at which its last dials
// began, oldest first.
type targets map[netip.Prefix][]time.Time

// targetOf returns the host that an unmapped address belongs to, and how many dials it may get; 0 is any number:
// only this machine has its loopback dialled.
func targetOf(a netip.Addr) (host netip.Prefix, most int) {
	switch {
	case a.IsLoopback():
		return level{a.BitLen(), 1}.prefix(a), 0
	case netaddr.IsLocal(a):
		return level{a.BitLen(), 1}.prefix(a), maxDialsPerLocalTarget
	case a.Is4():
		return level{32, 1}.prefix(a), maxDialsPerTarget
	}
	return level{64, 1}.prefix(a), maxDialsPerTarget
}

// dialAt returns when a host may be dialled again: now or later.
func (t targets) dialAt(a netip.Addr, now time.Time) time.Time {
	host, most := targetOf(a)
	began := t[host]
	if most == 0 || len(began) < most {
		return now
	}
	if at := began[len(began)-most].Add(targetWindow); at.After(now) {
		return at
	}
	return now
}

// begin counts a dial that begins.
func (t targets) begin(a netip.Addr, now time.Time) {
	host, most := targetOf(a)
	if most == 0 {
		return
	}
	if len(t) > sweepTargetsOver { // no more than what dials begin in a window are recent
		for host, began := range t {
			if now.Sub(began[len(began)-1]) >= targetWindow {
				delete(t, host)
			}
		}
	}
	began := append(t[host], now)
	t[host] = began[max(0, len(began)-most):]
}
