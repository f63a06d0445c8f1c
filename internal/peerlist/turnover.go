package peerlist

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
)

const (
	// TurnoverEvery is how often, where places are scarce, the worst peers make room for others.
	TurnoverEvery = 300 * time.Second
	// tryEvery is how often a peer that gives little makes room for a candidate that had no place yet.
	tryEvery = 10 * time.Second
	// littleRate is how many bytes a second of payload are little, so that a peer loses its place sooner to those that wait. A crowd that
	// gives as much for each of many places does no harm.
	littleRate = 4 << 10
	// patience is how long a peer that lets us wait keeps its place for that, since it last earned it: a seed of few slots that has some
	// hundred peers may need so long until it is our turn.
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

// Spare marks some of the peers that let us wait as patient, one of a network and an eighth of all: they make room only for those of smaller
// crowds. A seed lets a newcomer wait until all have had their turn that came before, which may take longer than the seed would keep its
// place here beside peers that earn theirs, and if we come back we are a newcomer again. Which peers are marked is decided by the lots of
// their networks, so that to come again gains a peer nothing.
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

// Turnover returns how many of the connected peers make room for others, every TurnoverEvery.
func Turnover(connected, maxPeers int) int {
	if connected*10 < maxPeers*9 {
		return 0
	}
	return max(1, connected*4/100)
}

// Worst returns the ids of the n least useful peers, worst first; fewer if the others are new, patient, or were named by the
// user.
func Worst(now time.Time, peers []Worth, n int) (ids []int) {
	return WorstOfAll(now, slices.DeleteFunc(slices.Clone(peers), func(p Worth) bool { return p.isExempt(now) || p.Patient }), n)
}

// isExempt reports whether a peer is new or was named by the user.
func (p Worth) isExempt(now time.Time) bool { return p.Keep || now.Sub(p.Joined) < joinedGrace }

// TurnedOver returns the ids of the n peers that make room for others, where Turnover says so: the worst, or if all are new, new ones.
// Otherwise peers that come without end, each from a fresh address, and displace one another as soon as they may, would keep out all
// that have to be dialled.
func TurnedOver(now time.Time, peers []Worth, n int) (ids []int) {
	if ids = Worst(now, peers, n); len(ids) > 0 {
		return ids
	}
	return WorstOfAll(now, slices.DeleteFunc(slices.Clone(peers), func(p Worth) bool { return p.Keep || p.Patient }), n)
}

// Tries gives candidates that had no place yet the places of peers that give little. The zero value is ready. The owner's mutex guards it.
type Tries struct{ next time.Time }

// GivesLittle returns the id of the peer that makes room for a candidate that had no place yet, once in tryEvery: of those that have had
// theirs for TurnoverEvery, the one that gives least, or of several the first to join, since others may have their turn to give yet to come.
// Otherwise a crowd of more networks than there are places, of which a few peers give just enough that the others are not worth less than
// candidates, would keep out for hours all that have to be dialled.
//
// One that earns its place makes room only if few do not, or candidates without end that give nothing would take the places of all that are
// slow. Under a limit all are slow, so none does.
func (t *Tries) GivesLittle(now time.Time, peers []Worth, limited bool) (id int, ok bool) {
	if now.Before(t.next) {
		return 0, false
	}
	idle := len(peers) - earning(now, peers)
	slow := !limited && idle*crowdShare < len(peers)
	peers = slices.DeleteFunc(slices.Clone(peers), func(p Worth) bool {
		return p.Keep || p.Patient || now.Sub(p.Joined) < TurnoverEvery || p.earns(now) && !(slow && p.Mean < littleRate)
	})
	if len(peers) == 0 {
		return 0, false
	}
	t.next = now.Add(tryEvery)
	return slices.MinFunc(peers, func(p, q Worth) int {
		return cmp.Or(compareBool(p.earns(now), q.earns(now)), cmp.Compare(p.Mean, q.Mean), p.Joined.Compare(q.Joined))
	}).ID, true
}

// Yielded reports whether a candidate has made room for another.
func (c *List) Yielded(addr netip.AddrPort) bool {
	k := c.all[netaddr.Unmap(addr)]
	return k != nil && k.yielded > 0
}

// MadeRoom records that the connection to addr ends because another peer is to have its place. Left follows.
func (c *List) MadeRoom(addr netip.AddrPort) {
	if k := c.all[netaddr.Unmap(addr)]; k != nil && k.standing == isConnected && !k.from.isTheUsers() {
		k.yielded++
	}
}

// Contend ends the exemption of those that the user named and that do not earn their places, because another that the user named waits
// for one.
func Contend(now time.Time, peers []Worth) {
	for k, p := range peers {
		peers[k].Keep = p.Keep && (p.earns(now) || now.Sub(p.Joined) < joinedGrace)
	}
}

// WorstOfAll is like Worst, but no peer is exempt.
func WorstOfAll(now time.Time, peers []Worth, n int) (ids []int) {
	peers = slices.SortedFunc(slices.Values(peers), func(p, q Worth) int {
		return cmp.Or(compareBool(p.earns(now), q.earns(now)), p.compare(q))
	})
	for _, p := range peers[:min(n, len(peers))] {
		ids = append(ids, p.ID)
	}
	return ids
}

// worst returns the id of the least useful of the peers; ok is false if there are none.
func worst(now time.Time, peers []Worth) (id int, ok bool) {
	ids := WorstOfAll(now, peers, 1)
	if len(ids) == 0 {
		return 0, false
	}
	return ids[0], true
}

// Idlest returns the id of the least useful peer that does not earn its place, or has had it for TurnoverEvery: to earn one costs
// little. Peers that are new or that the user named are exempt.
func Idlest(now time.Time, peers []Worth) (id int, ok bool) {
	return worst(now, slices.DeleteFunc(slices.Clone(peers), func(p Worth) bool {
		return p.isExempt(now) || p.earns(now) && now.Sub(p.Joined) < TurnoverEvery
	}))
}

// compare compares two peers of which both earn their places or neither does. It is negative if p is less useful.
// Being interested costs a peer nothing, so it decides only between peers that are otherwise equal.
func (p Worth) compare(q Worth) int {
	return cmp.Or(
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
