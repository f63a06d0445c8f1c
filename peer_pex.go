package torrent

import (
	"errors"
	"iter"
	"maps"
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/wire"
)

const (
	pexEvery      = time.Minute // a message to each peer (BEP 11)
	pexLeast      = 10 * time.Second
	maxPEXOffence = 10
	maxPEXSent    = 50 // added and dropped, each
)

// pexState is what one peer was told of others, and when it last told us.
type pexState struct {
	told     map[netip.AddrPort]struct{} // peers that it knows from us
	sentAt   time.Time                   // or there was nothing to tell
	gotAt    time.Time
	offences int
}

// gossips reports whether peers may be told of each other.
func (d *Download) gossips() bool { return !d.t.private }

// receivePEX takes the addresses that a peer knows (BEP 11).
func (p *peer) receivePEX(payload []byte, now time.Time) error {
	d := p.d
	d.mu.Lock()
	defer d.unlock(now)
	x, err := p.ext.pex.receive(payload, now)
	for a, flags := range named(&x, p.conn.addr.Addr()) {
		if flags&wire.PEXSeed != 0 && d.sated() {
			continue // seeds are of no use to each other
		}
		d.discovery.add(a, peerlist.FromPEX, "", now)
	}
	return err
}

// receive parses a message. One that comes too soon after the one before counts as empty; many such are an error.
func (s *pexState) receive(payload []byte, now time.Time) (wire.PEX, error) {
	if !s.gotAt.IsZero() && now.Sub(s.gotAt) < pexLeast {
		if s.offences++; s.offences > maxPEXOffence {
			return wire.PEX{}, errors.New("too many peer exchange messages")
		}
		return wire.PEX{}, nil
	}
	s.gotAt = now
	return wire.ParsePEX(payload), nil
}

// named yields the peers that a message from an address adds. Local ones are believed of local peers only. Of several at one public address only the first counts, so that a message
// cannot make us connect to many ports of a host (BEP 11).
func named(x *wire.PEX, from netip.Addr) iter.Seq2[netip.AddrPort, byte] {
	return func(yield func(netip.AddrPort, byte) bool) {
		seen := make(map[netip.Addr]bool)
		each := func(addrs []netip.AddrPort, flags []byte) bool {
			for k, a := range addrs {
				ip := a.Addr().Unmap()
				if !netaddr.Dialable(netaddr.Unmap(a)) || !netaddr.MayName(from, ip) || seen[ip] && !netaddr.IsLocal(ip) {
					continue
				}
				seen[ip] = true
				if !yield(a, flags[k]) {
					return false
				}
			}
			return true
		}
		_ = each(x.Added, x.AddedFlags) && each(x.Added6, x.Added6Flags)
	}
}

// sendPEX tells a peer, once a minute, which peers came and left since the last time.
func (d *Download) sendPEX(p *peer, now time.Time) {
	s := &p.ext.pex
	number := p.ext.number[extPEX]
	if number == 0 || !d.gossips() || !s.sentAt.IsZero() && now.Sub(s.sentAt) < pexEvery {
		return
	}
	var x wire.PEX
	here := make(map[netip.AddrPort]bool)
	for _, q := range d.swarm.peers {
		if !q.ext.listens.IsValid() || q == p || !netaddr.MayName(p.conn.addr.Addr(), q.ext.listens.Addr()) {
			continue
		}
		a := q.ext.listens
		here[a] = true
		if _, known := s.told[a]; known || len(x.Added)+len(x.Added6) == maxPEXSent {
			continue
		}
		var flags byte
		if q.isSeed() || q.ext.uploadOnly {
			flags |= wire.PEXSeed
		}
		if q.conn.encrypted {
			flags |= wire.PEXEncrypts
		}
		if !q.conn.incoming {
			flags |= wire.PEXReachable
		}
		if a.Addr().Is4() {
			x.Added, x.AddedFlags = append(x.Added, a), append(x.AddedFlags, flags)
		} else {
			x.Added6, x.Added6Flags = append(x.Added6, a), append(x.Added6Flags, flags)
		}
		if s.told == nil {
			s.told = make(map[netip.AddrPort]struct{})
		}
		s.told[a] = struct{}{}
	}
	for a := range maps.Keys(s.told) {
		if here[a] || len(x.Dropped)+len(x.Dropped6) == maxPEXSent {
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
		return // there are no other peers yet
	}
	s.sentAt = now
	if len(x.Added)+len(x.Added6)+len(x.Dropped)+len(x.Dropped6) > 0 {
		p.sendExtended(number, x.Append(nil))
	}
}
