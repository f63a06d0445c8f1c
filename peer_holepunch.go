package torrent

import (
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/wire"
)

// Two peers behind routers that translate addresses reach each other by uTP if both send at about the same time, which a
// peer that is connected to both tells them (BEP 55). We are the initiator for a candidate that could not be reached, if
// peer exchange said that it speaks the extension; the target when a peer has us connect; and a relay for our peers.

// punchEvery is how often a peer may have us do something about others, and how often we have it.
const punchEvery = time.Second

// punching is what a peer and we did by ut_holepunch (BEP 55).
type punching struct {
	sent    time.Time // a rendezvous that it is to relay
	relayed time.Time // a rendezvous that it sent
	told    time.Time // of another peer that wants to connect to it
	taken   time.Time // a connect that it sent
}

// again reports whether punchEvery has passed since at, which is now then.
func again(at *time.Time, now time.Time) bool {
	if !at.IsZero() && now.Sub(*at) < punchEvery {
		return false
	}
	*at = now
	return true
}

// punches reports whether hole punching is offered: it needs uTP, and peers that may be told of each other.
// The caller holds d.mu.
func (d *Download) punches() bool { return d.gossips() && d.client.transport.dialUTP != nil }

// receiveHolePunch takes a message of BEP 55. What cannot be read, and what comes more than once a second, is ignored.
func (p *peer) receiveHolePunch(payload []byte, now time.Time) error {
	m, ok := wire.ParseHolePunch(payload)
	if !ok {
		return nil
	}
	d := p.d
	d.mu.Lock()
	defer d.unlock(now)
	number := p.ext.number[extHolePunch]
	if number == 0 {
		return nil
	}
	switch m.Type {
	case wire.HolePunchRendezvous:
		if again(&p.ext.punching.relayed, now) {
			if code := p.introduce(m.Addr, now); code != 0 {
				p.sendHolePunch(wire.HolePunch{Type: wire.HolePunchError, Addr: m.Addr, Code: code})
			}
		}
	case wire.HolePunchConnect:
		if again(&p.ext.punching.taken, now) && netaddr.MayName(p.conn.addr.Addr(), m.Addr.Addr()) {
			d.punch(m.Addr, now)
		}
	case wire.HolePunchError:
		if d.discovery.candidates.DropRelay(m.Addr, p.conn.addr) { // so that a stranger has others asked for nothing
			d.rendezvous(m.Addr, now)
		}
	}
	return nil
}

// The caller holds p.d.mu.
func (p *peer) sendHolePunch(m wire.HolePunch) {
	p.sendExtended(p.ext.number[extHolePunch], m.Append(nil))
}

// introduce has the peer and one at another address connect to each other, or returns why not. Both are told only where
// the other one is that we are connected to, so that nothing is sent to a third. The caller holds p.d.mu.
func (p *peer) introduce(to netip.AddrPort, now time.Time) (code uint32) {
	d := p.d
	if !netaddr.Dialable(to) || p.isAt(to) {
		return wire.HolePunchNoSuchPeer
	}
	if d.discovery.candidates.IsSelf(to) {
		return wire.HolePunchNoSelf
	}
	var target *peer
	for _, q := range d.swarm.peers {
		if q.closing == nil && q.isAt(to) {
			target = q
		}
	}
	if target == nil {
		return wire.HolePunchNotConnected
	}
	from, at := p.reachedAt(), target.reachedAt()
	switch {
	case target.ext.number[extHolePunch] == 0 || !at.IsValid() || !from.IsValid():
		return wire.HolePunchNoSupport
	case netaddr.FamilyOf(from.Addr()) != netaddr.FamilyOf(at.Addr()), !netaddr.MayName(target.conn.addr.Addr(), from.Addr()), !netaddr.MayName(p.conn.addr.Addr(), at.Addr()):
		return wire.HolePunchNotConnected // as far as it is concerned
	case !again(&target.ext.punching.told, now):
		return 0 // it hears of enough others
	}
	target.sendHolePunch(wire.HolePunch{Type: wire.HolePunchConnect, Addr: from})
	p.sendHolePunch(wire.HolePunch{Type: wire.HolePunchConnect, Addr: at})
	return 0
}

// isAt reports whether the peer is the one at an address: where it listens, or where its connection comes from.
// The caller holds p.d.mu.
func (p *peer) isAt(a netip.AddrPort) bool { return p.ext.listens == a || p.conn.addr == a }

// reachedAt is where the peer's uTP socket is seen from outside: a router has chosen the port that its connection comes
// from, if that is by uTP. Else it is likely to be the one that it listens at. The caller holds p.d.mu.
func (p *peer) reachedAt() netip.AddrPort {
	if p.conn.way == byUTP {
		return p.conn.addr
	}
	return p.ext.listens
}

// unreached has a peer introduce us to a candidate that could not be reached.
func (d *Download) unreached(addr netip.AddrPort) {
	now := time.Now()
	d.mu.Lock()
	defer d.unlock(now)
	if !d.ended() {
		d.rendezvous(addr, now)
	}
}

// rendezvous has a peer that named a candidate introduce us to it. The caller holds d.mu.
func (d *Download) rendezvous(to netip.AddrPort, now time.Time) {
	if !d.punches() {
		return
	}
	for _, relay := range d.discovery.candidates.Relays(to) {
		for _, p := range d.swarm.peers {
			if p.conn.addr == relay && p.closing == nil && p.ext.number[extHolePunch] != 0 && again(&p.ext.punching.sent, now) {
				p.sendHolePunch(wire.HolePunch{Type: wire.HolePunchRendezvous, Addr: to})
				return
			}
		}
	}
}

// punch connects to a peer by uTP at once, as it does to us, within the bounds of other dials. The caller holds d.mu.
func (d *Download) punch(addr netip.AddrPort, now time.Time) {
	f := d.discovery
	if d.ended() || d.paused || d.progress.checking || !d.punches() || d.swarm.live+f.candidates.Dialling() >= d.maxPeers() {
		return
	}
	if f.client.targetAt(addr.Addr(), peerlist.FromPEX, now).After(now) {
		return
	}
	for _, q := range d.swarm.peers {
		if q.isAt(addr) {
			return
		}
	}
	f.add(addr, peerlist.FromPEX, "", now)
	if !d.client.mayDial(f, d.swarm.live, addr.Addr(), now) {
		return
	}
	if !f.candidates.Take(addr) {
		d.client.endDial()
		return
	}
	f.tried++
	f.tasks.Go(func() { f.dial(addr, peerlist.FromPEX, byUTP) })
}
