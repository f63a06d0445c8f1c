package peerlist

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/expiring"
	"github.com/shoal-go/torrent/internal/netaddr"
)

// Who keeps a place, when all are taken:
//
// A place is earned by giving, or passing on, EarnedBytes each two minutes. Some peers keep theirs whatever they give: those that
// the user named, until another that he named waits, and for 40 minutes some of those that let us wait (Spare). Any other makes
// room for a newcomer in one of three cases (Places.room):
//
//  1. Its crowd or network has more than its share of the places, and the newcomer's would not.
//  2. It does not earn its place, and its crowd is larger than the newcomer's would be, or as large and it is not new.
//  3. It earns its place, but its network has more places than the newcomer's would, or as many and it has had its own for a
//     while and gives no more than most. That is a trial, of which a network may have few in ten minutes.
//
// The least useful one of these goes, in the first case that applies to any. Newcomers that dial us take turns at the places that
// are free or that others make room at: networks in the order in which they came, those that had a place lately last, and so
// within these (line). A host that left without having earned its place comes back as one that is not new, and only to places
// that no candidate waits for.
//
// A candidate that waits to be dialled may not exist. So peers make room for it in the first case, in the second if they are of a
// larger crowd, and in all of the second if few earn their places (MakesRoom); and if it was never tried, each ten seconds one of
// those that give little (GivesLittle). For those that were, the worst peers make room each five minutes (TurnedOver).

const (
	// TurnoverEvery is how often, where places are scarce, the worst peers make room for others. One that has had its place for
	// as long is not new any more for a trial.
	TurnoverEvery = 300 * time.Second
	// tryEvery is how often a peer that gives little makes room for a candidate that had no place yet.
	tryEvery = 10 * time.Second
	// littleRate is how many bytes a second of payload are little, so that a peer loses its place sooner to those that wait. A
	// crowd that gives as much for each of many places does no harm.
	littleRate = 4 << 10
	// scarcity is the part of all peers that earn their places below which these are scarce.
	scarcity = 16

	// trialEvery is how often a newcomer of each prefix may displace a peer outside it that earns its place, and trialsOfNetwork
	// how many of a network may within that time.
	trialEvery      = 10 * time.Minute
	trialsOfNetwork = 4
	// maxRemembered is how many prefixes that had trials are remembered, and how many networks that peers left.
	maxRemembered = 4096

	// keptForTurn is how long a place is left to those that have waited longest.
	keptForTurn = 75 * time.Second

	// idlerStays is how long a host that lost its place, or left it, and had given nothing is no newcomer.
	idlerStays = 10 * time.Minute
	maxIdlers  = 4096
)

// Places decide who has the places of a download, or of a magnet link. The zero value is ready. The owner's mutex guards it.
type Places struct {
	line      line                                       // those that dialled us in vain; networks that had a place lately are late
	keptSince time.Time                                  // since when a place is kept for those next in line; zero if none is
	began     [4]expiring.Map[prefixTrials, []time.Time] // lately, by the length of the prefix: as many trials as those of a lineage
	left      expiring.Map[netip.Prefix, time.Time]      // when a peer of each network last left
	idlers    expiring.Map[netip.Prefix, time.Time]      // when each host last left, or lost its place, that had given nothing
	nextTry   time.Time                                  // when GivesLittle may return another
}

// prefixTrials are the trials of those newcomers of a prefix that dial us, or of those that we dial: neither use up the trials of
// the others.
type prefixTrials struct {
	of       netip.Prefix
	incoming bool
}

// PeerLeft records that a peer has left, or lost its place.
func (t *Places) PeerLeft(a netip.Addr, now time.Time) {
	t.left.Put(network(a), now, maxRemembered, func(left time.Time) bool { return now.Sub(left) >= trialEvery })
}

// leftLately reports whether a peer of the network of an address had a place lately.
func (t *Places) leftLately(a netip.Addr, now time.Time) bool {
	left, ok := t.left.Get(network(a))
	return ok && now.Sub(left) < trialEvery
}

// PeerLeftIdle records that a host left, or lost its place, and had given nothing. It has the grace of a newcomer only once.
// Otherwise many addresses that reconnect at once, one after the other, would leave no place for other peers.
func (t *Places) PeerLeftIdle(a netip.Addr, now time.Time) {
	if !netaddr.IsLocal(a) { // any number of peers may stand behind a local one
		t.idlers.Put(netaddr.Host(a), now, maxIdlers, func(at time.Time) bool { return now.Sub(at) >= idlerStays })
	}
}

// HasLeftIdle reports whether a host did so lately.
func (t *Places) HasLeftIdle(a netip.Addr, now time.Time) bool {
	at, ok := t.idlers.Get(netaddr.Host(a))
	return ok && now.Sub(at) < idlerStays
}

// MayFill reports whether a newcomer may take one of so many free places. One that dials us leaves them to those that have waited
// longer.
func (t *Places) MayFill(now time.Time, newcomer Connection, places int) bool {
	return !newcomer.Incoming || places <= 0 || t.hasTurn(newcomer.Addr, places, now)
}

// hasTurn reports whether a newcomer that dials us may take one of so many places, or has to wait in line.
func (t *Places) hasTurn(newcomer netip.Addr, places int, now time.Time) bool {
	path, late := lineage(newcomer), t.leftLately(newcomer, now)
	if !t.keptSince.IsZero() {
		places *= 1 + int(now.Sub(t.keptSince)/keptForTurn)
	}
	if t.line.ahead(path, late, places, now) < places {
		t.line.leave(path, true)
		t.keptSince = time.Time{}
		return true
	}
	if t.keptSince.IsZero() && places > 0 {
		t.keptSince = now
	}
	t.line.wait(path, late, now)
	return false
}

// Displaced returns the id of the peer that makes room for a newcomer, or 0 if none does. If the address of the newcomer is full,
// only peers of that address do. A newcomer that dials us waits while there are as many that wait before it as peers that would
// make room.
func (t *Places) Displaced(now time.Time, peers []Worth, newcomer Connection, full bool) int {
	if full {
		peers = slices.DeleteFunc(slices.Clone(peers), func(p Worth) bool { return p.Addr != newcomer.Addr })
	}
	r := t.room(now, peers, newcomer, true, true)
	switch n := r.n + len(r.fuller) + len(r.equal); {
	case full || !newcomer.Incoming:
	case n == 0 && !r.later:
		t.line.leave(lineage(newcomer.Addr), false) // it would keep places from others that it cannot take itself
	case !t.hasTurn(newcomer.Addr, n, now):
		return 0
	}
	if r.n > 0 {
		return r.worst.ID
	}
	if len(r.fuller) == 0 {
		r.fuller = r.equal
	}
	out := first(worst(now, r.fuller, 1, func(Worth) bool { return true }))
	if out.ID == 0 || !t.try(newcomer, out.Addr, now) {
		return 0
	}
	return out.ID
}

// try records that a newcomer's trial begins. It counts for the prefixes that the one which it displaces is not of: neighbours
// that share the places of a prefix use up none of its trials. It reports false if there are too many to be remembered.
func (t *Places) try(newcomer Connection, other netip.Addr, now time.Time) bool {
	over := func(all []time.Time) bool { return now.Sub(all[len(all)-1]) >= trialEvery }
	for k, prefix := range lineage(newcomer.Addr) {
		if !counts(prefix, other) {
			continue
		}
		by := prefixTrials{prefix, newcomer.Incoming}
		if !t.began[k].Put(by, append(t.lately(k, by, now), now), maxRemembered, over) {
			return false
		}
	}
	return true
}

// counts reports whether a trial that displaces another counts for a prefix of the newcomer: if the other is not in it, or shares
// the address.
func counts(prefix netip.Prefix, other netip.Addr) bool {
	return prefix.IsSingleIP() || !prefix.Contains(other.WithZone(""))
}

// lately returns when the trials of a prefix began that still matter.
func (t *Places) lately(k int, by prefixTrials, now time.Time) []time.Time {
	began, _ := t.began[k].Get(by)
	return slices.DeleteFunc(slices.Clone(began), func(began time.Time) bool { return now.Sub(began) >= trialEvery })
}

// tried returns the prefixes of a newcomer that may not try now.
func (t *Places) tried(newcomer Connection, now time.Time) (tried []netip.Prefix) {
	for k, prefix := range lineage(newcomer.Addr) {
		most := 1
		if k == 0 && !prefix.IsSingleIP() {
			most = trialsOfNetwork
		}
		if len(t.lately(k, prefixTrials{prefix, newcomer.Incoming}, now)) >= most {
			tried = append(tried, prefix)
		}
	}
	return tried
}

// room is which peers make room for a newcomer.
type room struct {
	n             int // how many do in the first two cases
	worst         Worth
	size          int     // of the crowd of the worst
	fuller, equal []Worth // those that do for a trial, of networks that have more places, and as many
	later         bool    // others will once they are no longer new, unless they earn their places until then
}

// room returns which peers make room for a newcomer. If idleToo is false, only peers of crowds do, and if onTrial is false, none
// for a trial.
func (t *Places) room(now time.Time, peers []Worth, newcomer Connection, idleToo, onTrial bool) (r room) {
	c := crowdsOf(peers)
	e := c.entrant(newcomer.Addr)
	var tried []netip.Prefix
	var median float64
	if onTrial {
		tried, median = t.tried(newcomer, now), medianRate(peers)
	}
	for _, p := range peers {
		theirs, theirNetwork := c.of(p.Addr, 0)
		ours, ourNetwork := e.inPlaceOf(p.Addr)
		idle := !p.earns(now)
		idleEqual := idleToo && idle && ours == theirs && !p.Patient // makes room once it is not new
		switch {
		case p.Keep:
			continue
		case hasTooMany(p.Addr, theirs, theirNetwork, len(peers)) && !hasTooMany(newcomer.Addr, ours, ourNetwork, len(peers)),
			idle && ours < theirs, idleEqual && !p.isNew(now):
			if r.n++; r.n == 1 || cmp.Or(compareBool(!idle, r.worst.earns(now)), cmp.Compare(r.size, theirs), p.compare(r.worst, now)) < 0 {
				r.worst, r.size = p, theirs
			}
			continue
		}
		r.later = r.later || idleEqual
		switch {
		case !onTrial || slices.ContainsFunc(tried, func(prefix netip.Prefix) bool { return counts(prefix, p.Addr) }):
		case ourNetwork < theirNetwork:
			r.fuller = append(r.fuller, p)
		case ourNetwork > theirNetwork || p.Patient || p.Rate > 2*median:
		case t.isTooNew(p, newcomer, now):
			r.later = true
		default:
			r.equal = append(r.equal, p)
		}
	}
	return r
}

// isTooNew reports whether a peer has had its place for a short time only, which is shorter if it gives little. Newcomers that we
// dial cannot wait until others give up their places: for these, no peer is new if another of its network had a place lately.
// Otherwise those that leave in time, and come back at once, would always be new.
func (t *Places) isTooNew(p Worth, newcomer Connection, now time.Time) bool {
	age := now.Sub(p.Joined)
	if age >= TurnoverEvery || !p.isNew(now) && float64(p.Given) < littleRate*age.Seconds() {
		return false
	}
	return newcomer.Incoming && t.leftLately(newcomer.Addr, now) || !t.leftLately(p.Addr, now)
}

// MakesRoom returns the id of the peer that makes room for a candidate, which may not exist at all, or 0 if none does. Unless
// peers are scarce, that is one of a crowd.
func (t *Places) MakesRoom(now time.Time, peers []Worth, candidate netip.Addr, scarce bool) (id int) {
	return t.room(now, peers, Connection{Addr: candidate}, scarce, false).worst.ID
}

// Scarce reports whether so few peers earn their places that the others are worth less than candidates that were
// never tried.
func Scarce(now time.Time, peers []Worth) bool {
	return earning(now, peers)*scarcity < len(peers)
}

// GivesLittle returns the id of the peer that makes room for a candidate that had no place yet, once in tryEvery, or 0: of those
// that have had theirs for TurnoverEvery, the one that gives least, or of several the first to join, since others may have their
// turn to give yet to come. Otherwise a crowd of more networks than there are places, of which a few peers give just enough that
// the others are not worth less than candidates, would keep out for hours all that have to be dialled.
//
// One that earns its place makes room only if few do not, or candidates without end that give nothing would take the places of
// all that are slow. Under a limit all are slow, so none does.
func (t *Places) GivesLittle(now time.Time, peers []Worth, limited bool) (id int) {
	if now.Before(t.nextTry) {
		return 0
	}
	idle := len(peers) - earning(now, peers)
	slow := !limited && idle*crowdShare < len(peers)
	peers = slices.DeleteFunc(slices.Clone(peers), func(p Worth) bool {
		return p.Keep || p.Patient || now.Sub(p.Joined) < TurnoverEvery || p.earns(now) && !(slow && p.Mean < littleRate)
	})
	if len(peers) == 0 {
		return 0
	}
	t.nextTry = now.Add(tryEvery)
	return slices.MinFunc(peers, func(p, q Worth) int {
		return cmp.Or(compareBool(p.earns(now), q.earns(now)), cmp.Compare(p.Mean, q.Mean), p.Joined.Compare(q.Joined))
	}).ID
}

// TurnedOver returns the ids of the peers that make room for others every TurnoverEvery, worst first: a few of the worst, if most
// places are taken. If all are new, new ones do. Otherwise peers that come without end, each from a fresh address, and displace
// one another as soon as they may, would keep out all that have to be dialled.
func TurnedOver(now time.Time, peers []Worth, places int) []int {
	if len(peers)*10 < places*9 {
		return nil
	}
	n := max(1, len(peers)*4/100)
	old := worst(now, peers, n, func(p Worth) bool { return !p.Keep && !p.Patient && !p.isNew(now) })
	if len(old) > 0 {
		return idsOf(old)
	}
	return idsOf(worst(now, peers, n, func(p Worth) bool { return !p.Keep && !p.Patient }))
}
