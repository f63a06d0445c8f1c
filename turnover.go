package torrent

import (
	"cmp"
	"slices"
	"time"
)

const (
	// turnoverRound is how often, in a crowd, the worst peers make room for others.
	turnoverRound = 300 * time.Second
	// turnoverGrace is how long after it connected a peer is not judged.
	turnoverGrace = time.Minute
)

// peerWorth is what decides whether a connection is kept when others are waiting.
type peerWorth struct {
	id       int
	keep     bool // the user asked for this peer
	joined   time.Time
	mutual   bool    // one of the two is interested in the other
	rate     float64 // bytes a second of payload, both ways
	priority uint32  // BEP 40
}

// turnover is how many of the connected peers are to make room for others in a turnoverRound.
func turnover(connected, maxPeers int) int {
	if connected*10 < maxPeers*9 {
		return 0
	}
	return max(1, connected*4/100)
}

// worst returns the ids of the n peers that would be missed least, worst first; fewer where the rest
// is new, or the user's own.
func worst(now time.Time, peers []peerWorth, n int) (ids []int) {
	peers = slices.DeleteFunc(slices.Clone(peers), func(p peerWorth) bool {
		return p.keep || now.Sub(p.joined) < turnoverGrace
	})
	slices.SortFunc(peers, func(p, q peerWorth) int {
		return cmp.Or(
			compareBool(p.mutual, q.mutual),
			cmp.Compare(p.rate, q.rate),
			cmp.Compare(p.priority, q.priority),
		)
	})
	for _, p := range peers[:min(n, len(peers))] {
		ids = append(ids, p.id)
	}
	return ids
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
