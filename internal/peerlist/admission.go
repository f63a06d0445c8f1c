package peerlist

import (
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
)

// A Handshake is what is looked at in an incoming connection that has not shaken hands yet.
type Handshake struct {
	Addr  netip.Addr // fixed
	Spoke bool       // the peer has sent the beginning of a handshake, or its whole key if that is encrypted
	Owner any        // the connection; fixed
}

// Handshakes are the incoming connections that have not shaken hands yet. Strangers can add hundreds a second, so their crowds are
// not counted again for each. The zero value is ready.
type Handshakes struct {
	all    []*Handshake // oldest first
	crowds crowds
}

// Add adds a connection.
func (s *Handshakes) Add(h *Handshake) {
	if s.crowds == nil {
		s.crowds = make(crowds)
	}
	s.all = append(s.all, h)
	s.crowds.add(h.Addr, 1)
}

// Remove removes a connection, if it is there.
func (s *Handshakes) Remove(h *Handshake) {
	if i := slices.Index(s.all, h); i >= 0 {
		s.all = slices.Delete(s.all, i, i+1)
		s.crowds.add(h.Addr, -1)
	}
}

// Len returns how many there are.
func (s *Handshakes) Len() int { return len(s.all) }

// All yields them, oldest first.
func (s *Handshakes) All() iter.Seq[*Handshake] { return slices.Values(s.all) }

// From returns how many come from an address.
func (s *Handshakes) From(a netip.Addr) (n int) {
	for _, h := range s.all {
		if h.Addr == a {
			n++
		}
	}
	return n
}

// Shed returns which of the connections makes room for a newcomer. In the largest crowd, which may include the newcomer, it is the
// oldest one that has sent nothing, or else the oldest. So connections from other prefixes have time for their handshake, however
// many come from a few prefixes.
func (s *Handshakes) Shed(newcomer netip.Addr) (out *Handshake) {
	s.crowds.add(newcomer, 1)
	defer s.crowds.add(newcomer, -1)
	size := 0
	for _, h := range s.all {
		if n := s.crowds.size(h.Addr); n > size || n == size && out.Spoke && !h.Spoke {
			out, size = h, n
		}
	}
	return out
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
