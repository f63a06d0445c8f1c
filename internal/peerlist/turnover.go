package peerlist

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// TurnoverEvery is how often, where places are scarce, the worst peers make room for others.
const TurnoverEvery = 300 * time.Second

// Worth is what decides whether a connection is kept when others are waiting.
type Worth struct {
	ID       int
	Addr     netip.Addr
	Keep     bool // the user asked for this peer
	Joined   time.Time
	Earned   time.Time // when it last had given, or passed on, another EarnedBytes; zero if never
	Mutual   bool      // one of the two is interested in the other
	Rate     float64   // bytes a second of payload, both ways
	Priority uint32    // BEP 40
}

// Turnover is how many of the connected peers are to make room for others, every TurnoverEvery.
func Turnover(connected, maxPeers int) int {
	if connected*10 < maxPeers*9 {
		return 0
	}
	return max(1, connected*4/100)
}

// Worst returns the ids of the n peers that would be missed least, worst first; fewer where the rest is
// new, or the user's own.
func Worst(now time.Time, peers []Worth, n int) (ids []int) {
	return WorstOfAll(now, slices.DeleteFunc(slices.Clone(peers), func(p Worth) bool {
		return p.Keep || now.Sub(p.Joined) < joinedGrace
	}), n)
}

// WorstOfAll is Worst where no peer is exempt.
func WorstOfAll(now time.Time, peers []Worth, n int) (ids []int) {
	peers = slices.SortedFunc(slices.Values(peers), func(p, q Worth) int {
		return cmp.Or(compareBool(p.earns(now), q.earns(now)), p.compare(q))
	})
	for _, p := range peers[:min(n, len(peers))] {
		ids = append(ids, p.ID)
	}
	return ids
}

// compare compares two peers that both earn their places, or both do not: it is negative if p would be missed less.
// That one is interested costs it nothing, so it only decides between peers of which nothing better is known.
func (p Worth) compare(q Worth) int {
	return cmp.Or(
		compareBool(p.Mutual, q.Mutual),
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
