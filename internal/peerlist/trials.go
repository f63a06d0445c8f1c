package peerlist

import (
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/expiring"
)

const (
	// trialEvery is how often a newcomer of each prefix may displace a peer outside it that earns its place, and trialsOfNetwork how many
	// of a network may within that time.
	trialEvery      = 10 * time.Minute
	trialsOfNetwork = 4
	maxTrials       = 4096

	// keptForTurn is how long a place is left to those that have waited longest.
	keptForTurn = 75 * time.Second
)

// Trials let newcomers show that they give more than the peers that have all places. Otherwise crowds of a few networks could keep
// all others out for little: each has its share, and its peers give just enough to earn it, or are new because they leave in time and
// others come. The zero value is ready. The download's mutex guards it.
type Trials struct {
	began  [4]expiring.Map[triers, []time.Time]  // lately, by the length of the prefix: as many as those of a lineage
	left   expiring.Map[netip.Prefix, time.Time] // when a peer of each network last left
	line   line                                  // the addresses that dialled us and found no place; networks that had one lately are late
	passed time.Time                             // since when a place is kept for those that have waited longest; zero if none is
}

// triers are the newcomers of a prefix that dial us, or that we dial: neither use up the trials of the others.
type triers struct {
	of       netip.Prefix
	incoming bool
}

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

// hasTurn reports whether a newcomer that dials us may take one of so many places, or has to wait in line. Networks that had no place lately
// come before those that had.
func (t *Trials) hasTurn(newcomer netip.Addr, places int, now time.Time) bool {
	path, late := lineage(newcomer), t.leftLately(newcomer, now)
	if !t.passed.IsZero() {
		places *= 1 + int(now.Sub(t.passed)/keptForTurn)
	}
	if t.line.ahead(path, late, places, now) < places {
		t.line.leave(path, true)
		t.passed = time.Time{}
		return true
	}
	if t.passed.IsZero() && places > 0 {
		t.passed = now
	}
	t.line.wait(path, late, now)
	return false
}

// Displaced returns the id of the peer that makes room for a newcomer, as the function of that name does. If there is none, it is the
// most useless peer of a network that has more places than that of the newcomer would have, or else of one that has as many, and has had
// them for a while, unless it gives far more than most. That is allowed once in a while to each address and each of its prefixes, and a few
// times to its network, so that newcomers that give nothing displace few. It counts only for those that the other is not of: neighbours that
// share the places of a prefix use up none of its trials. If the address of the newcomer is full, only peers of that address make room.
//
// A newcomer that dials us waits while there are as many that wait before it as peers that would make room for it.
func (t *Trials) Displaced(now time.Time, peers []Worth, newcomer Connection, full bool) (id int, ok bool) {
	if full {
		peers = slices.DeleteFunc(slices.Clone(peers), func(p Worth) bool { return p.Addr != newcomer.Addr })
	}
	c := crowdsOf(peers)
	id, out, later := displaced(now, peers, c, newcomer.Addr, true)
	fuller, equal, soon := t.rivals(now, peers, c, newcomer, out)
	switch room := len(out) + len(fuller) + len(equal); {
	case full || !newcomer.Incoming:
	case room == 0 && !later && !soon:
		t.line.leave(lineage(newcomer.Addr), false) // it would keep places from others that it cannot take itself
	case !t.hasTurn(newcomer.Addr, room, now):
		return 0, false
	}
	if len(out) > 0 {
		return id, true
	}
	if len(fuller) == 0 {
		fuller = equal
	}
	if id, ok = worst(now, fuller); !ok {
		return 0, false
	}
	over := func(all []time.Time) bool { return now.Sub(all[len(all)-1]) >= trialEvery }
	other := fuller[slices.IndexFunc(fuller, func(p Worth) bool { return p.ID == id })].Addr
	for k, prefix := range lineage(newcomer.Addr) {
		if counts(prefix, other) {
			by := triers{prefix, newcomer.Incoming}
			ok = ok && t.began[k].Put(by, append(t.lately(k, by, now), now), maxTrials, over)
		}
	}
	return id, ok
}

// counts reports whether a trial that displaces another counts for a prefix of the newcomer: if the other is not in it, or shares the address.
func counts(prefix netip.Prefix, other netip.Addr) bool {
	return prefix.IsSingleIP() || !prefix.Contains(other.WithZone(""))
}

// lately returns when the trials of a prefix began that still matter.
func (t *Trials) lately(k int, by triers, now time.Time) []time.Time {
	began, _ := t.began[k].Get(by)
	return slices.DeleteFunc(slices.Clone(began), func(began time.Time) bool { return now.Sub(began) >= trialEvery })
}

// rivals returns the peers that make room for a newcomer's trial, beside those that do so anyway: of networks that have more places, and as
// many. It reports whether others will once they are no longer new.
func (t *Trials) rivals(now time.Time, peers []Worth, c crowds, newcomer Connection, out map[int]bool) (fuller, equal []Worth, later bool) {
	var tried []netip.Prefix // that may not try now
	for k, prefix := range lineage(newcomer.Addr) {
		most := 1
		if k == 0 && !prefix.IsSingleIP() {
			most = trialsOfNetwork
		}
		if len(t.lately(k, triers{prefix, newcomer.Incoming}, now)) >= most {
			if tried = append(tried, prefix); prefix.IsSingleIP() {
				return nil, nil, false
			}
		}
	}
	e, median := c.entrant(newcomer.Addr), medianRate(peers)
	for _, p := range peers {
		_, ours := e.inPlaceOf(p.Addr)
		switch theirs := c.inNetwork(p.Addr); {
		case p.Keep || out[p.ID] || slices.ContainsFunc(tried, func(prefix netip.Prefix) bool { return counts(prefix, p.Addr) }):
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
