package peerlist

import (
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/expiring"
)

const (
	// trialEvery is how often a newcomer of each network may displace a peer that earns its place.
	trialEvery = 10 * time.Minute
	maxTrials  = 4096
)

// Trials let newcomers show that they give more than the peers that have all places. Otherwise crowds of a few networks could keep
// all others out for little: each has its share, and its peers give just enough to earn it, or are new because they leave in time and
// others come. The zero value is ready. The download's mutex guards it.
type Trials struct {
	began expiring.Map[string, time.Time] // by Network
}

// Displaced returns the id of the peer that makes room for a newcomer, as the function of that name does. If there is none, it is the
// most useless peer of a network that has more places than that of the newcomer would have, or else of one that has as many and has had
// them for a while. That is allowed once in a while to each network, so that newcomers that give nothing displace few.
func (t *Trials) Displaced(now time.Time, peers []Worth, newcomer netip.Addr) (id int, ok bool) {
	if id, ok = Displaced(now, peers, newcomer); ok {
		return id, true
	}
	network := Network(newcomer)
	over := func(began time.Time) bool { return now.Sub(began) >= trialEvery }
	if began, tried := t.began.Get(network); tried && !over(began) {
		return 0, false
	}
	c := crowdsOf(peers)
	var fuller, equal []Worth // peers of networks that have more places, and as many
	for _, p := range peers {
		_, ours := c.with(newcomer, p.Addr)
		switch theirs := c.inNetwork(p.Addr); {
		case p.Keep:
		case ours < theirs:
			fuller = append(fuller, p)
		case ours == theirs && now.Sub(p.Joined) >= TurnoverEvery:
			equal = append(equal, p)
		}
	}
	if id, ok = worst(now, fuller); !ok {
		id, ok = worst(now, equal)
	}
	if !ok || !t.began.Put(network, now, maxTrials, over) {
		return 0, false
	}
	return id, true
}
