package peerlist

import (
	"net/netip"

	"github.com/shoal-go/torrent/internal/netaddr"
)

const (
	// MaxPerAddress is how many connections of one download may be to one public address. A local one may
	// have more as long as they take no place from others.
	MaxPerAddress = 3

	// crowdShare is the part of all places that peers of one prefix keep by earning them, as far as their network keeps
	// no more than networkShare.
	crowdShare   = 8
	networkShare = 2
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

// levelsOf returns the levels that count for an address, which the caller must not change. Of a local one, which any number of
// peers may stand behind, only the address itself does.
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

// Network returns the name of a peer's network, which identifies the peer as a namer. It is the widest prefix by which places are
// counted.
func Network(a netip.Addr) string { return network(a).String() }

// network is Network as a prefix.
func network(a netip.Addr) netip.Prefix {
	levels := levelsOf(a)
	return levels[len(levels)-1].prefix(a)
}

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

// of returns how large the largest crowd is that an address is in, and how many are in its network, with more there.
func (c crowds) of(a netip.Addr, more int) (size, inNetwork int) {
	for _, l := range levelsOf(a) { // the widest prefix comes last
		inNetwork = c[l.prefix(a)] + more
		size = max(size, inNetwork/l.fair)
	}
	return max(1, size), inNetwork
}

// size is that of the largest crowd that an address is in.
func (c crowds) size(a netip.Addr) int {
	size, _ := c.of(a, 0)
	return size
}

// hasTooMany reports whether a crowd of a size, or a network, that an address is in has more than its share of so many places.
func hasTooMany(a netip.Addr, size, inNetwork, places int) bool {
	if netaddr.IsLocal(a) {
		return size > MaxPerAddress
	}
	return size > max(MaxPerAddress, places/crowdShare) || inNetwork > max(1, places/networkShare)
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
			size = c.size(a)
		}
		sizes = append(sizes, size)
	}
	return sizes
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

// inPlaceOf returns the size of the crowd of an entrant, and the number of peers in its network, if it takes the place of
// another.
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
