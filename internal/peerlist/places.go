package peerlist

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
)

const (
	// MaxPerAddress is how many connections of one download may be to one public address. A local one may
	// have more as long as they take no place from others.
	MaxPerAddress = 3

	// EarnedBytes is how much a peer has to give, or pass on, to have earned its place for earnedGrace. It is far
	// less than an honest peer gives, and enough that a crowd which earns all places does no harm.
	EarnedBytes = 64 << 10
	earnedGrace = 2 * time.Minute
	// joinedGrace is how long a new peer keeps its place without earning it, unless it is one of a crowd.
	joinedGrace = time.Minute

	// crowdShare is the part of all places that peers of one prefix keep by earning them, as far as their network keeps
	// no more than networkShare.
	crowdShare   = 8
	networkShare = 2
	// scarcity is the part of all peers that earn their places below which these are scarce.
	scarcity = 16
)

// A level is a length of prefixes that places are counted by. Addresses of a wide one are harder to get many of,
// and more honest peers share it, so fair of them count as one.
type level struct{ bits, fair int }

var (
	levelsOf4      = []level{{24, 1}, {16, 4}}
	levelsOf6      = []level{{64, 1}, {48, 2}, {32, 8}}
	levelsOfLocal4 = []level{{32, 1}}
	levelsOfLocal6 = []level{{128, 1}}
)

// levelsOf returns the levels that count for an address, which the caller must not change. Of a local one, which any number of peers
// may stand behind, only the address itself does.
func levelsOf(a netip.Addr) []level {
	switch local := netaddr.IsLocal(a); {
	case local && a.Is4():
		return levelsOfLocal4
	case local:
		return levelsOfLocal6
	case a.Is4():
		return levelsOf4
	}
	return levelsOf6
}

// prefix returns the prefix of an address, whatever its zone.
func (l level) prefix(a netip.Addr) netip.Prefix {
	p, _ := a.Prefix(l.bits) // bits are always in range
	return p
}

// narrowest returns the narrowest prefix that counts for an address.
func narrowest(a netip.Addr) netip.Prefix { return levelsOf(a)[0].prefix(a) }

// crowds is how many places the peers of each prefix have.
type crowds map[netip.Prefix]int

func crowdsOf(peers []Worth) crowds {
	c := make(crowds, 2*len(peers))
	for _, p := range peers {
		c.add(p.Addr, 1)
	}
	return c
}

// add adds n peers at an address.
func (c crowds) add(a netip.Addr, n int) {
	for _, l := range levelsOf(a) {
		prefix := l.prefix(a)
		if c[prefix] += n; c[prefix] <= 0 {
			delete(c, prefix)
		}
	}
}

// size returns how large the largest crowd is that an address is in, with more peers there.
func (c crowds) size(a netip.Addr, more int) (n int) {
	for _, l := range levelsOf(a) {
		n = max(n, (c[l.prefix(a)]+more)/l.fair)
	}
	return max(1, n)
}

// Crowds returns how many of the addresses count as the network of each. A local one, which any number of peers may stand
// behind, is no crowd.
func Crowds(addrs []netip.Addr) (sizes []int) {
	c := make(crowds)
	for _, a := range addrs {
		c.add(a, 1)
	}
	for _, a := range addrs {
		size := 1
		if !netaddr.IsLocal(a) {
			size = c.size(a, 0)
		}
		sizes = append(sizes, size)
	}
	return sizes
}

// inNetwork returns how many peers are of the widest prefix that counts for an address.
func (c crowds) inNetwork(a netip.Addr) int {
	levels := levelsOf(a)
	return c[levels[len(levels)-1].prefix(a)]
}

// of returns the size of the largest crowd that an address is in, and how many peers are in its network.
func (c crowds) of(a netip.Addr) (size, inNetwork int) {
	for _, l := range levelsOf(a) { // the widest prefix comes last
		inNetwork = c[l.prefix(a)]
		size = max(size, inNetwork/l.fair)
	}
	return max(1, size), inNetwork
}

// An entrant is a newcomer that may take the place of any peer.
type entrant struct {
	local  bool
	beside []beside // the widest prefix comes last
}

// beside is how many peers share a prefix with an entrant.
type beside struct {
	prefix  netip.Prefix
	n, fair int
}

func (c crowds) entrant(a netip.Addr) entrant {
	e := entrant{local: netaddr.IsLocal(a)}
	for _, l := range levelsOf(a) {
		e.beside = append(e.beside, beside{l.prefix(a), c[l.prefix(a)], l.fair})
	}
	return e
}

// inPlaceOf returns the size of the crowd of an entrant, and the number of peers in its network, if it takes the place of another.
func (e *entrant) inPlaceOf(other netip.Addr) (size, inNetwork int) {
	local := netaddr.IsLocal(other)
	other = other.WithZone("")
	for _, b := range e.beside {
		inNetwork = b.n + 1
		if local == e.local && b.prefix.Contains(other) {
			inNetwork--
		}
		size = max(size, inNetwork/b.fair)
	}
	return max(1, size), inNetwork
}

// earns reports whether a peer has lately given what a place is worth.
func (p Worth) earns(now time.Time) bool {
	return !p.Earned.IsZero() && now.Sub(p.Earned) < earnedGrace
}

// Displaced returns the id of the peer that makes room for a newcomer when all places are taken:
//
//   - one that does not earn its place, and is of a larger crowd than the newcomer;
//   - one that has not earned its place for a while, is of no smaller crowd, and is not patient;
//   - one of a crowd or a network that has more than its share, whatever it gives, if the newcomer is of none.
//
// It is the most useless of these. ok is false if there is none.
func Displaced(now time.Time, peers []Worth, newcomer netip.Addr) (id int, ok bool) {
	id, out, _ := displaced(now, peers, crowdsOf(peers), newcomer, true)
	return id, len(out) > 0
}

// MakesRoom returns the id of the peer that makes room for a candidate, which may not exist at all, when all places are taken. If more
// peers are wanted and few earn their places, that is the peer that a newcomer displaces; otherwise it is one of a crowd. ok is false
// if there is none.
func MakesRoom(now time.Time, peers []Worth, candidate netip.Addr, wanted bool) (id int, ok bool) {
	if wanted && scarce(now, peers) {
		return Displaced(now, peers, candidate)
	}
	return crowding(now, peers, candidate)
}

// crowding is like Displaced, but only peers of crowds make room, because the candidate may not exist at all.
func crowding(now time.Time, peers []Worth, candidate netip.Addr) (id int, ok bool) {
	id, out, _ := displaced(now, peers, crowdsOf(peers), candidate, false)
	return id, len(out) > 0
}

// scarce reports whether so few peers earn their places that the others are worth less than candidates that were
// never tried.
func scarce(now time.Time, peers []Worth) bool {
	return earning(now, peers)*scarcity < len(peers)
}

// earning returns how many of the peers earn their places.
func earning(now time.Time, peers []Worth) (n int) {
	for _, p := range peers {
		if p.earns(now) {
			n++
		}
	}
	return n
}

// displaced returns the id of the peer that makes room for a newcomer, the ids of all that would, and whether others will once they are no
// longer new, unless they earn their places until then. If idle is false, only peers of crowds make room.
func displaced(now time.Time, peers []Worth, c crowds, newcomer netip.Addr, idle bool) (id int, all map[int]bool, later bool) {
	over := func(a netip.Addr, size, inNetwork int) bool {
		if netaddr.IsLocal(a) {
			return size > MaxPerAddress
		}
		return size > max(MaxPerAddress, len(peers)/crowdShare) || inNetwork > max(1, len(peers)/networkShare)
	}
	e := c.entrant(newcomer)
	all = make(map[int]bool)
	var worst Worth
	size := 0 // of the crowd of the worst
	for _, p := range peers {
		theirs, theirNetwork := c.of(p.Addr)
		ours, inNetwork := e.inPlaceOf(p.Addr)
		var out bool
		switch {
		case p.Keep:
		case over(p.Addr, theirs, theirNetwork) && !over(newcomer, ours, inNetwork):
			out = true
		case !p.earns(now):
			isNew := now.Sub(p.Joined) < joinedGrace
			out = ours < theirs || idle && ours == theirs && !isNew && !p.Patient
			later = later || ours == theirs && isNew && !p.Patient
		}
		if !out {
			continue
		}
		if len(all) == 0 || cmp.Or(
			compareBool(p.earns(now), worst.earns(now)),
			cmp.Compare(size, theirs),
			p.compare(worst),
		) < 0 {
			worst, size = p, theirs
		}
		all[p.ID] = true
	}
	return worst.ID, all, later
}
