package dht

import (
	"net/netip"

	"github.com/shoal-go/torrent/internal/netaddr"
)

const (
	maxBallots = 32
	minAgree   = 5
)

// vote finds our external address from what nodes of different networks say that it is (the key ip of
// BEP 42), a network at a time having one voice.
type vote struct {
	ballots []ballot // at most maxBallots, a ring
	next    int      // the oldest, once the ring is full
	winner  netip.Addr
}

type ballot struct {
	from netip.AddrPort // network
	says netip.Addr
}

// cast records what a node that answered us says of our address, and reports whether that makes another
// winner: at least five agree, and more than half of the last 32.
func (v *vote) cast(from netip.AddrPort, says netip.Addr) (changed bool) {
	if netaddr.IsLocal(says) || !netaddr.Dialable(netip.AddrPortFrom(says, 1)) {
		return false
	}
	b := ballot{networkOf(from), says}
	agree, at := 1, -1
	for i, other := range v.ballots {
		if other.from == b.from {
			at = i
		} else if other.says == says {
			agree++
		}
	}
	switch {
	case at >= 0:
		v.ballots[at] = b
	case len(v.ballots) < maxBallots:
		v.ballots = append(v.ballots, b)
	default:
		if v.ballots[v.next].says == says {
			agree--
		}
		v.ballots[v.next] = b
		v.next = (v.next + 1) % maxBallots
	}
	if says == v.winner || agree < minAgree || 2*agree <= len(v.ballots) {
		return false
	}
	v.winner = says
	return true
}
