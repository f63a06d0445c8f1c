package dht

import (
	"net/netip"
	"time"
)

const (
	answerRate   = 8000 // bytes a second of all answers
	answerSaved  = 3    // seconds of it that may be saved
	hostShare    = 8    // an address gets one part in so many
	networkShare = 4    // and a /24 or a /64

	floodPackets = 50 // queries of one address within floodWindow
	floodWindow  = 10 * time.Second
	floodSilence = 5 * time.Minute

	maxGuarded = 1024 // addresses, and as many networks
)

// guard bounds what we answer, so that a forged sender gains nothing by us and a flood costs little: bytes
// in all, a share of them an address and a network, and nothing to an address that asks faster than any
// honest node does. Neither touches what that node answers us.
//
// It is bounded itself. Addresses that find no place are held to the budget that all share.
type guard struct {
	all      budget
	hosts    map[netip.AddrPort]*asker
	networks map[netip.AddrPort]*budget
}

// asker is an address that sent queries.
type asker struct {
	bytes  budget
	window time.Time // start of the current window
	count  int       // queries within it
	before int       // queries within the window before it
	silent time.Time // until when nothing is answered
}

func newGuard() guard {
	return guard{
		all:      newShare(1),
		hosts:    make(map[netip.AddrPort]*asker),
		networks: make(map[netip.AddrPort]*budget),
	}
}

// newShare is one part of the budget of answers.
func newShare(parts float64) budget {
	return budget{rate: answerRate / parts, burst: answerRate * answerSaved / parts}
}

// admit counts a query, and reports whether it may be answered.
func (g *guard) admit(now time.Time, from netip.AddrPort) bool {
	host, network := hostOf(from), networkOf(from)
	a := g.hosts[host]
	if a == nil && len(g.hosts) < maxGuarded {
		a = &asker{bytes: newShare(hostShare), window: now}
		g.hosts[host] = a
	}
	if a != nil && a.floods(now) {
		return false
	}
	if g.networks[network] == nil && len(g.networks) < maxGuarded {
		share := newShare(networkShare)
		g.networks[network] = &share
	}
	return g.all.left(now) > 0 &&
		(a == nil || a.bytes.left(now) > 0) &&
		(g.networks[network] == nil || g.networks[network].left(now) > 0)
}

// answered takes an answer of n bytes from what the address and its network may have.
func (g *guard) answered(now time.Time, to netip.AddrPort, n int) {
	g.all.spend(now, float64(n))
	if a := g.hosts[hostOf(to)]; a != nil {
		a.bytes.spend(now, float64(n))
	}
	if share := g.networks[networkOf(to)]; share != nil {
		share.spend(now, float64(n))
	}
}

// floods counts a query. The windows follow each other without a gap, and the one before counts by the
// part of it that lies within the last ten seconds.
func (a *asker) floods(now time.Time) bool {
	if now.Before(a.silent) {
		return true
	}
	switch passed := now.Sub(a.window); {
	case passed >= 2*floodWindow || passed < 0:
		a.window, a.count, a.before = now, 0, 0
	case passed >= floodWindow:
		a.window, a.count, a.before = a.window.Add(floodWindow), 0, a.count
	}
	a.count++
	old := 1 - now.Sub(a.window).Seconds()/floodWindow.Seconds()
	if float64(a.count)+old*float64(a.before) <= floodPackets {
		return false
	}
	a.silent = now.Add(floodSilence)
	a.count, a.before = 0, 0
	return true
}

// sweep forgets the addresses that have no recent queries and no penalty.
func (g *guard) sweep(now time.Time) {
	for host, a := range g.hosts {
		if now.Sub(a.window) >= 2*floodWindow && !now.Before(a.silent) && a.bytes.left(now) >= a.bytes.burst {
			delete(g.hosts, host)
		}
	}
	for network, share := range g.networks {
		if share.left(now) >= share.burst {
			delete(g.networks, network)
		}
	}
}
