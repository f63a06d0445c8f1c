// Package extaddr decides which external address of ours to believe, by what routers, nodes of the DHT and peers say of it.
//
// It is plain data. The owner of a Vote guards it.
package extaddr

import (
	"net/netip"
	"slices"

	"github.com/shoal-go/torrent/internal/netaddr"
)

const (
	maxBallots = 64
	minAgree   = 5
)

// A Vote finds our external address of one family from what others in different networks say that it is (the key ip of BEP 42,
// yourip of BEP 10), with one vote for each network. Once there are five that are verified, only such ones count, because an
// attacker can make any number of others. The zero value is ready to use.
type Vote struct {
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
	from netip.AddrPort // what identifies the network
	says netip.Addr
}

// Winner returns our external address; invalid if unknown.
func (v *Vote) Winner() netip.Addr { return v.winner }

// Route records what a router says of our address, which holds until others agree on another, and reports whether that
// makes another winner.
func (v *Vote) Route(says netip.Addr) (changed bool) {
	if netaddr.IsLocal(says) || says == v.winner || v.winner.IsValid() && v.winner != v.routed {
		return false
	}
	v.routed, v.winner = says, says
	return true
}

// Cast records what a host of a network says of our address, and reports whether that makes another winner: at least five
// networks agree, and two thirds of the last 64. A third that lies is almost never as many; and a node that believed it once
// would be one voice less for the truth.
func (v *Vote) Cast(network netip.AddrPort, says netip.Addr, verified bool) (changed bool) {
	if netaddr.IsLocal(says) || !netaddr.Dialable(netip.AddrPortFrom(says, 1)) {
		return false
	}
	b := ballot{network, says}
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
