package peerlist

import (
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
)

// MaxPerAddress is how many connections of one download may be to one public address.
const MaxPerAddress = 3

// A Connection is what admission looks at in a connection to a peer.
type Connection struct {
	ID       int // of a connection that was admitted, from 1
	Addr     netip.Addr
	PeerID   [20]byte
	Incoming bool // the peer made it
}

// Admit decides whether there may be another connection beside those that there are. Where both ends
// dialled each other at once, both keep the connection made by the lower peer id: twice is the one that
// makes room for it then, or 0. own is our peer id, and full means that there is no room for more.
func Admit(own [20]byte, k Connection, all []Connection, full bool) (twice int, ok bool) {
	same := 0
	for _, p := range all {
		if p.Addr != k.Addr {
			continue
		}
		same++
		if p.PeerID == k.PeerID && p.Incoming != k.Incoming {
			oursIsLower := string(own[:]) < string(k.PeerID[:])
			if k.Incoming == oursIsLower {
				return 0, false
			}
			twice = p.ID
		}
	}
	// Any number of peers may stand behind a local address, but they take no place from others, nor one
	// that others are being dialled for.
	if same >= MaxPerAddress && (!netaddr.IsLocal(k.Addr) || k.Incoming && full) {
		return 0, false
	}
	return twice, true
}

// Useless returns the id of the peer that is to make room for any other: the worst of those of which
// neither side wants anything. It is not ok if there is none.
func Useless(now time.Time, peers []Worth) (id int, ok bool) {
	return first(Worst(now, slices.DeleteFunc(slices.Clone(peers), func(p Worth) bool { return p.Mutual }), 1))
}

// Crowding returns the id of the peer, however new, that is to make room for one at an address: the worst of
// those at an address that has more places than a public one may have. It is not ok if there is none, or if
// the other's address has as many.
func Crowding(now time.Time, peers []Worth, other netip.Addr) (id int, ok bool) {
	places := make(map[netip.Addr]int)
	for _, p := range peers {
		places[p.Addr]++
	}
	if places[other] >= MaxPerAddress {
		return 0, false
	}
	peers = slices.DeleteFunc(slices.Clone(peers), func(p Worth) bool { return places[p.Addr] <= MaxPerAddress })
	for k := range peers {
		peers[k].Joined = time.Time{}
	}
	return first(Worst(now, peers, 1))
}

func first(ids []int) (id int, ok bool) {
	if len(ids) == 0 {
		return 0, false
	}
	return ids[0], true
}
