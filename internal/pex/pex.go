// Package pex records which peers the two ends of a connection told each other about (BEP 11).
//
// It is plain data: it knows no connection and no clock. One Exchange serves one connection, whose lock guards it.
package pex

import (
	"errors"
	"iter"
	"maps"
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/wire"
)

const (
	every      = time.Minute // a message to each peer (BEP 11)
	least      = 10 * time.Second
	maxOffence = 10
	maxSent    = 50 // added and dropped, each
)

// An Exchange records which peers one peer was told about, and when it last told us. The zero value is ready for use.
type Exchange struct {
	told     map[netip.AddrPort]struct{} // peers that it knows from us
	sentAt   time.Time                   // or there was nothing to tell
	gotAt    time.Time
	offences int
}

// A Peer is one peer of a message.
type Peer struct {
	Addr  netip.AddrPort // at which it listens
	Flags byte           // wire.PEXSeed and others
}

// Receive parses a message from an address, and yields the peers that it adds. Local addresses are accepted only from local
// peers. Of several at one public address only the first counts, so that a message cannot make us connect to many ports of
// a host (BEP 11). A message that comes too soon after the one before counts as empty; many such are an error.
func (s *Exchange) Receive(payload []byte, from netip.Addr, now time.Time) (iter.Seq[Peer], error) {
	if !s.gotAt.IsZero() && now.Sub(s.gotAt) < least {
		var err error
		if s.offences++; s.offences > maxOffence {
			err = errors.New("too many peer exchange messages")
		}
		return func(func(Peer) bool) {}, err
	}
	s.gotAt = now
	x := wire.ParsePEX(payload)
	return func(yield func(Peer) bool) {
		seen := make(map[netip.Addr]bool)
		each := func(addrs []netip.AddrPort, flags []byte) bool {
			for k, a := range addrs {
				ip := a.Addr().Unmap()
				if !netaddr.Dialable(netaddr.Unmap(a)) || !netaddr.MayName(from, ip) || seen[ip] && !netaddr.IsLocal(ip) {
					continue
				}
				seen[ip] = true
				if !yield(Peer{a, flags[k]}) {
					return false
				}
			}
			return true
		}
		_ = each(x.Added, x.AddedFlags) && each(x.Added6, x.Added6Flags)
	}, nil
}

// Due reports whether the peer may be told which peers came and left.
func (s *Exchange) Due(now time.Time) bool { return s.sentAt.IsZero() || now.Sub(s.sentAt) >= every }

// Message returns the message for a peer at an address: which of peers came, and which left, since the last message.
// It is nil if there is nothing to tell.
func (s *Exchange) Message(to netip.Addr, peers iter.Seq[Peer], now time.Time) []byte {
	var x wire.PEX
	here := make(map[netip.AddrPort]bool)
	for q := range peers {
		a := q.Addr
		if !netaddr.MayName(to, a.Addr()) {
			continue
		}
		here[a] = true
		if _, known := s.told[a]; known || len(x.Added)+len(x.Added6) == maxSent {
			continue
		}
		if a.Addr().Is4() {
			x.Added, x.AddedFlags = append(x.Added, a), append(x.AddedFlags, q.Flags)
		} else {
			x.Added6, x.Added6Flags = append(x.Added6, a), append(x.Added6Flags, q.Flags)
		}
		if s.told == nil {
			s.told = make(map[netip.AddrPort]struct{})
		}
		s.told[a] = struct{}{}
	}
	for a := range maps.Keys(s.told) {
		if here[a] || len(x.Dropped)+len(x.Dropped6) == maxSent {
			continue
		}
		delete(s.told, a)
		if a.Addr().Is4() {
			x.Dropped = append(x.Dropped, a)
		} else {
			x.Dropped6 = append(x.Dropped6, a)
		}
	}
	if s.told == nil {
		return nil // there are no other peers yet
	}
	s.sentAt = now
	if len(x.Added)+len(x.Added6)+len(x.Dropped)+len(x.Dropped6) == 0 {
		return nil
	}
	return x.Append(nil)
}
