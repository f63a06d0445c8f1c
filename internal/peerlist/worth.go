package peerlist

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"time"
)

const (
	// EarnedBytes is how much a peer has to give, or pass on, to have earned its place for earnedGrace. It is far
	// less than an honest peer gives, and enough that a crowd which earns all places does no harm.
	EarnedBytes = 64 << 10
	earnedGrace = 2 * time.Minute
	// joinedGrace is how long a new peer keeps its place without earning it, unless it is one of a crowd.
	joinedGrace = time.Minute

	// patience is how long a peer that lets us wait keeps its place for that, since it last earned it: a seed of few slots that
	// has some hundred peers may need so long until it is our turn.
	patience = 40 * time.Minute
	// patientShare is the part of all places that such peers have.
	patientShare = 8
)

// Worth holds the properties that decide whether a connection is kept when others are waiting.
type Worth struct {
	ID       int
	Addr     netip.Addr
	Keep     bool // the user asked for this peer; see Contend
	Joined   time.Time
	Earned   time.Time // when it last had given, or passed on, another EarnedBytes; zero if never
	Given    int64     // what it had given or passed on by then
	Mutual   bool      // one of the two is interested in the other
	Waits    bool      // it wants something from us and had no turn yet: others that have had theirs make room first
	Rate     float64   // bytes a second of payload, both ways
	Mean     float64   // likewise, since it joined
	Priority uint32    // BEP 40, or a lot
	Awaited  bool      // it has what we want, and does not leave our requests unanswered
	Lot      uint64    // see NetworkLot
	Patient  bool      // it keeps its place while it lets us wait; see Spare
}

// Spare marks some of the peers that let us wait as patient, one of a network and an eighth of all: they make room only for those
// of smaller crowds. A seed lets a newcomer wait until all have had their turn that came before, which may take longer than the
// seed would keep its place here beside peers that earn theirs, and if we come back we are a newcomer again. Which peers are
// marked is decided by the lots of their networks, so that to come again gains a peer nothing.
func Spare(now time.Time, peers []Worth) {
	var awaited []int
	for k, p := range peers {
		since := p.Joined
		if p.Earned.After(since) {
			since = p.Earned
		}
		if p.Awaited && !p.earns(now) && now.Sub(since) < patience {
			awaited = append(awaited, k)
		}
	}
	slices.SortFunc(awaited, func(a, b int) int {
		return cmp.Or(cmp.Compare(peers[a].Lot, peers[b].Lot), peers[a].Joined.Compare(peers[b].Joined))
	})
	awaited = slices.CompactFunc(awaited, func(a, b int) bool { return peers[a].Lot == peers[b].Lot })
	for _, k := range awaited[:min(len(awaited), len(peers)/patientShare)] {
		peers[k].Patient = true
	}
}

// NetworkLot returns the lot of the network of an address, drawn with a key that no other knows.
func NetworkLot(key uint64, a netip.Addr) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, key, Network(a))
	return h.Sum64()
}

// earns reports whether a peer has lately given what a place is worth.
func (p Worth) earns(now time.Time) bool {
	return !p.Earned.IsZero() && now.Sub(p.Earned) < earnedGrace
}

// isNew reports whether a peer may not have had its turn to give yet.
func (p Worth) isNew(now time.Time) bool { return now.Sub(p.Joined) < joinedGrace }

// earning returns how many of the peers earn their places.
func earning(now time.Time, peers []Worth) (n int) {
	for _, p := range peers {
		if p.earns(now) {
			n++
		}
	}
	return n
}

// Contend ends the exemption of those that the user named and that do not earn their places, because another that the user named
// waits for one.
func Contend(now time.Time, peers []Worth) {
	for k, p := range peers {
		peers[k].Keep = p.Keep && (p.earns(now) || p.isNew(now))
	}
}

// WorstOfAll returns the ids of the n least useful peers, worst first.
func WorstOfAll(now time.Time, peers []Worth, n int) []int {
	return idsOf(worst(now, peers, n, func(Worth) bool { return true }))
}

// worst returns the n least useful of those peers that may make room, worst first.
func worst(now time.Time, peers []Worth, n int, may func(Worth) bool) []Worth {
	peers = slices.DeleteFunc(slices.Clone(peers), func(p Worth) bool { return !may(p) })
	slices.SortFunc(peers, func(p, q Worth) int { return p.compare(q, now) })
	return peers[:min(n, len(peers))]
}

// first returns the first of some peers, or one without an id if there is none.
func first(peers []Worth) (p Worth) {
	if len(peers) > 0 {
		p = peers[0]
	}
	return p
}

// idsOf returns the ids of some peers.
func idsOf(peers []Worth) (ids []int) {
	for _, p := range peers {
		ids = append(ids, p.ID)
	}
	return ids
}

// compare is negative if a peer is less useful than another. Being interested costs a peer nothing, so it decides only between
// peers that are otherwise equal.
func (p Worth) compare(q Worth, now time.Time) int {
	return cmp.Or(
		compareBool(p.earns(now), q.earns(now)),
		compareBool(p.Mutual, q.Mutual),
		compareBool(p.Waits, q.Waits),
		cmp.Compare(p.Rate, q.Rate),
		cmp.Compare(p.Priority, q.Priority),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
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
