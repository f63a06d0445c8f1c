package dht

import (
	"net/netip"
	"slices"

	"github.com/shoal-go/torrent/internal/netaddr"
)

const (
	maxBallots = 64
	minAgree   = 5
)

// vote finds our external address from what nodes of different networks say that it is (the key ip of BEP 42), with
// one vote for each network. Once there are five nodes whose own ids follow from their addresses, only such nodes
// count, because an attacker can make any number of others.
type vote struct {
	verified, others ring
	winner           netip.Addr
	routed           netip.Addr // what a router said last
}

// ring is the last ballots.
type ring struct {
	ballots []ballot // at most maxBallots
	next    int      // the oldest, once there are as many
}

type ballot struct {
	from netip.AddrPort // network
	says netip.Addr
}

// route records what a router says of our address, which holds until nodes agree on another, and reports whether that
// makes another winner.
func (v *vote) route(says netip.Addr) (changed bool) {
	if netaddr.IsLocal(says) || says == v.winner || v.winner.IsValid() && v.winner != v.routed {
		return false
	}
	v.routed, v.winner = says, says
	return true
}

// cast records what a node that answered us says of our address, and reports whether that makes another
// winner: at least five agree, and two thirds of the last 64. A third who lie are almost never as many; and
// a node that believed them once would be one voice less for the truth.
func (v *vote) cast(from netip.AddrPort, says netip.Addr, verified bool) (changed bool) {
	if netaddr.IsLocal(says) || !netaddr.Dialable(netip.AddrPortFrom(says, 1)) {
		return false
	}
	b := ballot{networkOf(from), says}
	if verified {
		v.verified.cast(b)
	} else {
		v.others.cast(b)
	}
	agree, all := v.verified.count(says)
	if all < minAgree {
		more, others := v.others.count(says)
		agree, all = agree+more, all+others
	}
	if says == v.winner || agree < minAgree || 3*agree < 2*all {
		return false
	}
	v.winner = says
	return true
}

func (r *ring) cast(b ballot) {
	if i := slices.IndexFunc(r.ballots, func(o ballot) bool { return o.from == b.from }); i >= 0 {
		r.ballots[i] = b
		return
	}
	if len(r.ballots) < maxBallots {
		r.ballots = append(r.ballots, b)
		return
	}
	r.ballots[r.next] = b
	r.next = (r.next + 1) % maxBallots
}

// count returns how many ballots agree on says, and how many there are.
func (r *ring) count(says netip.Addr) (agree, all int) {
	for _, b := range r.ballots {
		if b.says == says {
			agree++
		}
	}
	return agree, len(r.ballots)
}
