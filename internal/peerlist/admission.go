package peerlist

import (
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
)

// Handshake is what is looked at in an incoming connection that has not shaken hands yet.
type Handshake struct {
	Addr  netip.Addr
	Spoke bool // the peer has sent the beginning of a handshake, or its whole key if that is encrypted
}

// Shed returns which of the connections in their handshake, given oldest first, makes room for a newcomer. In the largest
// crowd, which may include the newcomer, it is the oldest one that has sent nothing, or else the oldest. So connections
// from other prefixes have time for their handshake, however many come from a few prefixes.
func Shed(handshakes []Handshake, newcomer netip.Addr) (i int) {
	c := make(crowds)
	c.add(newcomer, 1)
	for _, h := range handshakes {
		c.add(h.Addr, 1)
	}
	size := 0
	for k, h := range handshakes {
		if n := c.size(h.Addr); n > size || n == size && handshakes[i].Spoke && !h.Spoke {
			i, size = k, n
		}
	}
	return i
}

// A Connection is what admission knows of a connection to a peer.
type Connection struct {
	ID       int // of a connection that was admitted, from 1
	Addr     netip.Addr
	PeerID   [20]byte
	Incoming bool // the peer made it

	Named bool // the user named the address, which we dialled
	Again bool // we have dialled it in vain for about a minute, see InVain
	Age   time.Duration
	Idle  bool // it has not been useful yet
}

// AtOnce is how far apart two dials of one another may lie.
const AtOnce = 20 * time.Second

// Admit decides whether to admit another connection beside the existing ones. If both ends dialled each other at
// once, both keep the connection made by the lower peer id; twice is the id of the connection that it replaces, in whose place it
// is to be admitted whatever else holds, or 0. Otherwise the peer, which decides likewise, may have closed the one while we close
// the other. own is our peer id.
//
// A peer id is only a claim, and a peer that shares an address with another may have learned its id. So later on no connection
// replaces another, and none keeps another out for long: we admit one that we dial again, and any beside one that has been
// useless for some minutes, or one that the user named beside one that is useless. If it is the same peer after all, that closes
// it, unless it has found the first one useless for as long.
func Admit(own [20]byte, k Connection, all []Connection) (twice int, ok bool) {
	for _, p := range all {
		if p.Addr != k.Addr {
			continue
		}
		if p.PeerID != k.PeerID || p.Incoming == k.Incoming || k.Again || p.Idle && (p.Age > TurnoverEvery || k.Named && p.Age > AtOnce) {
			continue
		}
		if oursIsLower := string(own[:]) < string(k.PeerID[:]); p.Age > AtOnce || k.Incoming == oursIsLower {
			return 0, false
		}
		if p.Age <= AtOnce/2 { // longer ago, the peer may count it as earlier, and close the newcomer
			twice = p.ID
		}
	}
	return twice, true
}

// IsFull reports whether the address of k has as many connections as it may, so that one of these has to make room
// (Places.Displaced).
func IsFull(k Connection, all []Connection) bool {
	return connections(k.Addr, all) >= MaxPerAddress && !k.Named && !netaddr.IsLocal(k.Addr)
}

// connections returns how many connections there are to an address.
func connections(a netip.Addr, all []Connection) (n int) {
	for _, p := range all {
		if p.Addr == a {
			n++
		}
	}
	return n
}

// Crowded reports whether k is one of many that peers made from one local address. Any number of peers may share it, such as all
// that a router or a container forwards to us. But they take no free place that others are being dialled for: if there are no
// more, one has to make room (Displaced).
func Crowded(k Connection, all []Connection) bool {
	return k.Incoming && netaddr.IsLocal(k.Addr) && connections(k.Addr, all) >= MaxPerAddress
}
