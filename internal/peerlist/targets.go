package peerlist

import (
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/expiring"
	"github.com/shoal-go/torrent/internal/netaddr"
)

const (
	targetWindow = time.Minute
	// maxDialsPerTarget is how many dials of one target begin in any targetWindow, whatever the ports, so that a
	// source cannot aim many clients at it. More peers may share a local address.
	maxDialsPerTarget      = 6
	maxDialsPerLocalTarget = 30
	maxTargets             = 2048 // more than are dialled in a targetWindow and waitsFor, so that none is refused
)

// targets are the hosts that were dialled recently, by address, or by /64. The zero value is ready.
type targets struct {
	hosts expiring.Map[netip.Prefix, *target]
}

type target struct {
	began   []time.Time // when its last dials began, oldest first
	waiting turns       // downloads that have to wait for it: one with many ports of it keeps no other from its only one
}

// over reports whether the last dial of a host matters no more, neither to the bound nor to those that wait for it to pass.
func (h *target) over(now time.Time) bool {
	return now.Sub(h.began[len(h.began)-1]) >= targetWindow+waitsFor
}

// targetOf returns the host that an unmapped address belongs to, and how many dials it may get; 0 is any number:
// only this machine has its loopback dialled.
func targetOf(a netip.Addr) (host netip.Prefix, most int) {
	switch {
	case a.IsLoopback():
		return level{a.BitLen(), 1}.prefix(a), 0
	case netaddr.IsLocal(a):
		return level{a.BitLen(), 1}.prefix(a), maxDialsPerLocalTarget
	}
	return netaddr.Host(a), maxDialsPerTarget
}

// dialAt returns when a host may be dialled by a download: now or later.
func (t *targets) dialAt(by any, a netip.Addr, now time.Time) (at time.Time) {
	host, most := targetOf(a)
	h, _ := t.hosts.Get(host)
	if most == 0 || h == nil {
		return now
	}
	at = now.Add(targetWindow)
	if ahead := h.waiting.ahead(by, false, most, now); ahead < most {
		at = now
		if k := ahead - (most - len(h.began)); k >= 0 && h.began[k].Add(targetWindow).After(now) {
			at = h.began[k].Add(targetWindow)
		}
	}
	if at.After(now) || h.waiting.has(by) {
		h.waiting.wait(by, at.Add(waitsFor))
	}
	return at
}

// served records that a download begins a dial of a host.
func (t *targets) served(by any, a netip.Addr) {
	host, _ := targetOf(a)
	if h, ok := t.hosts.Get(host); ok {
		h.waiting.served(by)
	}
}

// forget forgets a download that has ended.
func (t *targets) forget(by any) {
	for _, h := range t.hosts.All() {
		h.waiting.served(by)
	}
}

// begin counts a dial that begins.
func (t *targets) begin(a netip.Addr, now time.Time) {
	host, most := targetOf(a)
	if most == 0 {
		return
	}
	h, ok := t.hosts.Get(host)
	if !ok {
		h = &target{}
	}
	h.began = append(h.began, now)
	h.began = h.began[max(0, len(h.began)-most):]
	if !ok {
		t.hosts.Put(host, h, maxTargets, func(h *target) bool { return h.over(now) })
	}
}
