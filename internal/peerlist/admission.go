package peerlist

import (
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
)

// Handshake is what is looked at in an incoming connection that has not shaken hands yet.
type Handshake struct {
	Addr  netip.Addr
	Spoke bool // the peer has sent the beginning of a handshake
}

// Shed returns which of the connections that shake hands, oldest first, makes room for a newcomer: of the largest
// crowd, which the newcomer may be one of, the oldest that has said nothing, else the oldest. However many come from a few
// prefixes, those from others have the time that a handshake takes.
func Shed(handshakes []Handshake, newcomer netip.Addr) (i int) {
	c := make(crowds)
	c.add(newcomer)
	for _, h := range handshakes {
		c.add(h.Addr)
	}
	size := 0
	for k, h := range handshakes {
		if n := c.size(h.Addr); n > size || n == size && handshakes[i].Spoke && !h.Spoke {
			i, size = k, n
		}
	}
	return i
}

// A Connection is what admission looks at in a connection to a peer.
type Connection struct {
	ID       int // of a connection that was admitted, from 1
	Addr     netip.Addr
	PeerID   [20]byte
	Incoming bool // the peer made it

	Named bool // the user named the address, which we dialled
	Old   bool // it has been there for longer than two dials at once may lie apart
	Idle  bool // nothing of use came of it yet
}

// AtOnce is how far apart two dials of one another may lie.
const AtOnce = 20 * time.Second

// Admit decides whether there may be another connection beside those that there are. Where both ends
// dialled each other at once, both keep the connection made by the lower peer id: twice is the one that
// makes room for it then, or 0. own is our peer id, and full means that there is no room for more.
//
// A peer id is only what a peer says, and one that shares an address with another may have heard its id. So no
// connection makes room later on, but one that nothing came of for the user's own peer.
func Admit(own [20]byte, k Connection, all []Connection, full bool) (twice int, ok bool) {
	same := 0
	for _, p := range all {
		if p.Addr != k.Addr {
			continue
		}
		same++
		if p.PeerID == k.PeerID && p.Incoming != k.Incoming {
			oursIsLower := string(own[:]) < string(k.PeerID[:])
			if p.Old && !(k.Named && p.Idle) || !p.Old && k.Incoming == oursIsLower {
				return 0, false
			}
			twice = p.ID
		}
	}
	// Any number of peers may stand behind a local address, but they take no place from others, nor one
	// that others are being dialled for.
	if same >= MaxPerAddress && !k.Named && (!netaddr.IsLocal(k.Addr) || k.Incoming && full) {
		return 0, false
	}
	return twice, true
}
