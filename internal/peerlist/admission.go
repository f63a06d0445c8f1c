package peerlist

import (
	"net/netip"

	"github.com/shoal-go/torrent/internal/netaddr"
)

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
