package peerlist

import (
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/expiring"
)

const (
	// trialEvery is how often a newcomer of each /24 or /48 may displace a peer that earns its place, and trialsOfNetwork how many
	// of a network may within that time.
	trialEvery      = 10 * time.Minute
	trialsOfNetwork = 4
	maxTrials       = 4096

	// waitsForPlace is how long a network waits for a place after it last dialled us, and keepsTurn how long it keeps its turn: a peer that
	// was refused a few times may not dial before a source names us again. A place is left to those that have waited longest for keptForTurn.
	waitsForPlace = 200 * time.Second
	keepsTurn     = 40 * time.Minute
	keptForTurn   = 75 * time.Second
)

// Trials let newcomers show that they give more than the peers that have all places. Otherwise crowds of a few networks could keep
// all others out for little: each has its share, and its peers give just enough to earn it, or are new because they leave in time and
// others come. The zero value is ready. The download's mutex guards it.
type Trials struct {
	ofNetworks  expiring.Map[triers, []trial]
	ofAddresses expiring.Map[triers, []trial]         // that are full
	left        expiring.Map[netip.Prefix, time.Time] // when a peer of each network last left
	fresh       turns                                 // each Network that had no place lately, and of which a peer dialled us and found none
	waiting     turns                                 // the same of those that had one
	passed      time.Time                             // since when a place is kept for those that have waited longest; zero if none is
}

// triers are the newcomers of a Network, or of a full address, that dial us, or that we dial: neither use up the trials of the others.
type triers struct {
	of       string
	incoming bool
}

// A trial is a newcomer's attempt.
type trial struct {
	by    netip.Prefix // its /24 or /48, so that one network's many addresses there have one trial
	began time.Time
}

// over reports whether a trial matters no more.
func (t trial) over(now time.Time) bool { return now.Sub(t.began) >= trialEvery }

// Left records that a peer has left, or lost its place.
func (t *Trials) Left(a netip.Addr, now time.Time) {
	t.left.Put(network(a), now, maxTrials, func(left time.Time) bool { return now.Sub(left) >= trialEvery })
}

// isNew reports whether a peer has had its place for a short time only, which is shorter if it gives little. Newcomers that we dial
// cannot wait until others give up their places: for these, no peer is new if another of its network had a place lately. Otherwise
// those that leave in time, and come back at once, would always be new.
func (t *Trials) isNew(p Worth, newcomer Connection, now time.Time) bool {
	age := now.Sub(p.Joined)
	if age >= TurnoverEvery || age >= joinedGrace && float64(p.Given) < littleRate*age.Seconds() {
		return false
	}
	return newcomer.Incoming && t.leftLately(newcomer.Addr, now) || !t.leftLately(p.Addr, now)
}

// leftLately reports whether a peer of the network of an address had a place lately.
func (t *Trials) leftLately(a netip.Addr, now time.Time) bool {
	left, ok := t.left.Get(network(a))
	return ok && now.Sub(left) < trialEvery
}

// MayFill reports whether a newcomer may take one of so many free places. One that dials us leaves them to those that have waited longer.
func (t *Trials) MayFill(now time.Time, newcomer Connection, places int) bool {
	return !newcomer.Incoming || places <= 0 || t.hasTurn(newcomer.Addr, places, now)
}

// hasTurn reports whether a newcomer that dials us may take one of so many places, or has to wait. Networks that had no place lately come
// before those that had.
func (t *Trials) hasTurn(newcomer netip.Addr, places int, now time.Time) bool {
	network := Network(newcomer)
	if !t.passed.IsZero() {
		places *= 1 + int(now.Sub(t.passed)/keptForTurn)
	}
	line, ahead := &t.waiting, t.fresh.ahead(network, places, now)
	if !t.leftLately(newcomer, now) {
		line = &t.fresh
	} else {
		ahead += t.waiting.ahead(network, places, now)
	}
	if ahead < places {
		t.served(network)
		t.passed = time.Time{}
		return true
	}
	if t.passed.IsZero() && places > 0 {
		t.passed = now
	}
	wait(line, network, now)
	return false
}

// served has a network wait no longer.
func (t *Trials) served(network string) {
	t.fresh.served(network)
	t.waiting.served(network)
}

// wait has a network wait in a line for its turn, unless very many do.
func wait(line *turns, network string, now time.Time) {
	line.keeps = keepsTurn
	if line.order.Len() >= maxTrials {
		line.keeps = 0
		for range line.all(now) { // those that no longer wait are forgotten
		}
		if !line.has(network) && line.order.Len() >= maxTrials {
			return
		}
	}
	line.wait(network, now.Add(waitsForPlace))
}

// Displaced returns the id of the peer that makes room for a newcomer, as the function of that name does. If there is none, it is the
// most useless peer of a network that has more places than that of the newcomer would have, or else of one that has as many, and has had
// them for a while, unless it gives far more than most. That is allowed once in a while to each /24 or /48, and to few of a network, so
// that newcomers that give nothing displace few. If the address of the newcomer is full, only peers of that address make room, and it is
// allowed once to all there.
//
// A newcomer that dials us waits while there are as many networks that have waited longer as peers that would make room for it.
func (t *Trials) Displaced(now time.Time, peers []Worth, newcomer Connection, full bool) (id int, ok bool) {
	trials, by, most := &t.ofNetworks, triers{Network(newcomer.Addr), newcomer.Incoming}, trialsOfNetwork
	if full {
		trials, by.of, most = &t.ofAddresses, newcomer.Addr.String(), 1
		peers = slices.DeleteFunc(slices.Clone(peers), func(p Worth) bool { return p.Addr != newcomer.Addr })
	}
	c := crowdsOf(peers)
	id, out, later := displaced(now, peers, c, newcomer.Addr, true)
	tried, _ := trials.Get(by)
	tried = slices.DeleteFunc(slices.Clone(tried), func(last trial) bool { return last.over(now) })
	next := trial{neighbours(newcomer.Addr), now}
	var fuller, equal []Worth
	if len(tried) < most && !slices.ContainsFunc(tried, func(last trial) bool { return last.by == next.by }) {
		var soon bool
		fuller, equal, soon = t.rivals(now, peers, c, newcomer, out)
		later = later || soon
	}
	switch room := len(out) + len(fuller) + len(equal); {
	case full || !newcomer.Incoming:
	case room == 0 && !later:
		t.served(by.of) // it would keep places from others that it cannot take itself
	case !t.hasTurn(newcomer.Addr, room, now):
		return 0, false
	}
	if len(out) > 0 {
		return id, true
	}
	if id, ok = worst(now, fuller); !ok {
		id, ok = worst(now, equal)
	}
	over := func(all []trial) bool { return all[len(all)-1].over(now) }
	if !ok || !trials.Put(by, append(tried, next), maxTrials, over) {
		return 0, false
	}
	return id, true
}

// rivals returns the peers that make room for a newcomer's trial, beside those that do so anyway: of networks that have more places, and as
// many. It reports whether others will once they are no longer new.
func (t *Trials) rivals(now time.Time, peers []Worth, c crowds, newcomer Connection, out map[int]bool) (fuller, equal []Worth, later bool) {
	e, median := c.entrant(newcomer.Addr), medianRate(peers)
	for _, p := range peers {
		_, ours := e.inPlaceOf(p.Addr)
		switch theirs := c.inNetwork(p.Addr); {
		case p.Keep || out[p.ID]:
		case ours < theirs:
			fuller = append(fuller, p)
		case ours > theirs || p.Patient || p.Rate > 2*median:
		case t.isNew(p, newcomer, now):
			later = true
		default:
			equal = append(equal, p)
		}
	}
	return fuller, equal, later
}

// medianRate returns a rate that at least half of the peers do not exceed.
func medianRate(peers []Worth) float64 {
	if len(peers) == 0 {
		return 0
	}
	rates := make([]float64, len(peers))
	for k, p := range peers {
		rates[k] = p.Rate
	}
	slices.Sort(rates)
	return rates[(len(rates)-1)/2]
}
