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
)

// Trials let newcomers show that they give more than the peers that have all places. Otherwise crowds of a few networks could keep
// all others out for little: each has its share, and its peers give just enough to earn it, or are new because they leave in time and
// others come. The zero value is ready. The download's mutex guards it.
type Trials struct {
	ofNetworks  expiring.Map[triers, []trial]
	ofAddresses expiring.Map[triers, []trial]   // that are full
	left        expiring.Map[string, time.Time] // when a peer of each Network last left
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
	t.left.Put(Network(a), now, maxTrials, func(left time.Time) bool { return now.Sub(left) >= trialEvery })
}

// isNew reports whether a peer has had its place for a short time only, and no other of its network had one lately. Otherwise those that
// leave in time, and come back at once, would always be new.
func (t *Trials) isNew(p Worth, now time.Time) bool {
	left, ok := t.left.Get(Network(p.Addr))
	return now.Sub(p.Joined) < TurnoverEvery && (!ok || now.Sub(left) >= trialEvery)
}

// Displaced returns the id of the peer that makes room for a newcomer, as the function of that name does. If there is none, it is the
// most useless peer of a network that has more places than that of the newcomer would have, or else of one that has as many and has had
// them for a while. That is allowed once in a while to each /24 or /48, and to few of a network, so that newcomers that give nothing
// displace few. If the address of the newcomer is full, only peers of that address make room, and it is allowed once to all there.
func (t *Trials) Displaced(now time.Time, peers []Worth, newcomer Connection, full bool) (id int, ok bool) {
	trials, by, most := &t.ofNetworks, triers{Network(newcomer.Addr), newcomer.Incoming}, trialsOfNetwork
	if full {
		trials, by.of, most = &t.ofAddresses, newcomer.Addr.String(), 1
		peers = slices.DeleteFunc(slices.Clone(peers), func(p Worth) bool { return p.Addr != newcomer.Addr })
	}
	if id, ok = Displaced(now, peers, newcomer.Addr); ok {
		return id, true
	}
	tried, _ := trials.Get(by)
	tried = slices.DeleteFunc(slices.Clone(tried), func(last trial) bool { return last.over(now) })
	next := trial{neighbours(newcomer.Addr), now}
	if len(tried) >= most || slices.ContainsFunc(tried, func(last trial) bool { return last.by == next.by }) {
		return 0, false
	}
	c := crowdsOf(peers)
	var fuller, equal []Worth // peers of networks that have more places, and as many
	for _, p := range peers {
		_, ours := c.with(newcomer.Addr, p.Addr)
		switch theirs := c.inNetwork(p.Addr); {
		case p.Keep:
		case ours < theirs:
			fuller = append(fuller, p)
		case ours == theirs && !t.isNew(p, now):
			equal = append(equal, p)
		}
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
