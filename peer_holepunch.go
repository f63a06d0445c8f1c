package torrent

import (
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/wire"
)

// Two peers behind routers that translate addresses reach each other by uTP if both send at about the same time. A peer
// that is connected to both, the relay, tells them when (BEP 55). We are the initiator for a candidate that could not be
// reached, if peer exchange said that it supports the extension; the target when a relay tells us to connect; and a
// relay for our peers.

// punchEvery is the least interval between messages of one kind with which a peer makes us act for others, and
// between our own to it.
const punchEvery = time.Second

// introduceEvery is the least interval between two introductions of one peer, or of peers of one network, to the same peer. A peer
// hears of one in punchEvery only, so that otherwise one that asks again and again would leave nothing for others.
const introduceEvery = 30 * time.Second

// punching records the last messages of ut_holepunch between a peer and us (BEP 55).
type punching struct {
	sent    time.Time // our last rendezvous to it
	relayed time.Time // its last rendezvous
	told    time.Time // our last connect to it, about another peer
	taken   time.Time // its last connect

	heardOf []introduction // the peers that it was told of within introduceEvery
}

// An introduction records when a peer was told of another.
type introduction struct {
	of netip.AddrPort // where its connection comes from
	at time.Time
}

// again reports whether punchEvery has passed since *at, and if so sets *at to now.
func again(at *time.Time, now time.Time) bool {
	if !at.IsZero() && now.Sub(*at) < punchEvery {
		return false
	}
	*at = now
	return true
}

// tells reports whether a peer may be told of another now, and if so records that it is.
func (h *punching) tells(of netip.AddrPort, now time.Time) bool {
	h.heardOf = slices.DeleteFunc(h.heardOf, func(i introduction) bool { return now.Sub(i.at) >= introduceEvery })
	hosts := []netip.Addr{of.Addr()}
	for _, i := range h.heardOf {
		if i.of == of {
			return false
		}
		hosts = append(hosts, i.of.Addr())
	}
	if peerlist.Crowds(hosts)[0] > 1 || !again(&h.told, now) {
		return false
	}
	h.heardOf = append(h.heardOf, introduction{of, now})
	return true
}

// punches reports whether hole punching is offered: it needs uTP, and peers that may be told of each other.
// The caller holds d.mu.
func (d *Download) punches() bool { return d.gossips() && d.client.transport.dialUTP != nil }

// receiveHolePunch acts on a message of BEP 55. Malformed messages, and those that come more than once a second, are
// ignored.
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
		d.discovery.candidates.DropRelay(m.Addr, p.conn.addr)
	}
	return nil
}

// The caller holds p.d.mu.
func (p *peer) sendHolePunch(m wire.HolePunch) {
	p.sendExtended(p.ext.number[extHolePunch], m.Append(nil))
}

// introduce tells the peer and one at another address to connect to each other, or returns the error code. Each is told
// only the address of a peer that we are connected to, so that no third party is sent anything. The caller holds
// p.d.mu.
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
		return wire.HolePunchNotConnected // it is told the same as if there were no such peer
	case !target.ext.punching.tells(p.conn.addr, now):
		return 0 // it hears of enough others
	}
	target.sendHolePunch(wire.HolePunch{Type: wire.HolePunchConnect, Addr: from})
	p.sendHolePunch(wire.HolePunch{Type: wire.HolePunchConnect, Addr: at})
	return 0
}

// isAt reports whether an address is the peer's: the one that it listens at, or the one that its connection comes
// from. The caller holds p.d.mu.
func (p *peer) isAt(a netip.AddrPort) bool { return p.ext.listens == a || p.conn.addr == a }

// reachedAt returns the address at which others most likely reach the peer's uTP socket. If its connection uses uTP, a
// router may have chosen the port that the connection comes from. Otherwise the port is likely to be the one that the
// peer listens at. The caller holds p.d.mu.
func (p *peer) reachedAt() netip.AddrPort {
	if p.conn.way == byUTP {
		return p.conn.addr
	}
	return p.ext.listens
}

// unreached asks peers to introduce us to a candidate that could not be reached.
func (d *Download) unreached(addr netip.AddrPort) {
	now := time.Now()
	d.mu.Lock()
	defer d.unlock(now)
	if d.ended() || !d.punches() || len(d.discovery.candidates.Relays(addr)) == 0 || slices.Contains(d.swarm.unmet, addr) {
		return
	}
	if len(d.swarm.unmet) == maxUnmet {
		d.swarm.unmet = slices.Delete(d.swarm.unmet, 0, 1)
	}
	d.swarm.unmet = append(d.swarm.unmet, addr)
	d.rendezvous(now)
}

const (
	// maxUnmet is how many candidates wait until a peer may be asked to introduce us to them. Dials of several that one peer named
	// often fail at the same time. The oldest makes room: peers that name candidates without end have those of no other peer wait.
	maxUnmet = 64
	// relaysAtOnce is how many peers are asked to introduce us to a candidate when a dial of it fails.
	relaysAtOnce = 4
)

// rendezvous asks peers that named candidates to introduce us to them. The caller holds d.mu.
func (d *Download) rendezvous(now time.Time) {
	if len(d.swarm.unmet) == 0 {
		return
	}
	relays := make(map[netip.AddrPort]*peer)
	for _, p := range d.swarm.peers {
		if p.closing == nil && p.ext.number[extHolePunch] != 0 {
			relays[p.conn.addr] = p
		}
	}
	d.swarm.unmet = slices.DeleteFunc(d.swarm.unmet, func(to netip.AddrPort) bool {
		if d.listensAt(to) {
			return true
		}
		asked, waits := 0, false
		for _, relay := range d.discovery.candidates.Relays(to) {
			p := relays[relay]
			switch {
			case p == nil:
				d.discovery.candidates.DropRelay(to, relay)
			case asked == relaysAtOnce:
			case again(&p.ext.punching.sent, now):
				p.sendHolePunch(wire.HolePunch{Type: wire.HolePunchRendezvous, Addr: to})
				d.discovery.candidates.AskedRelay(to, relay)
				asked++
			default:
				waits = true // the peer was asked for another within punchEvery
			}
		}
		return asked > 0 || !waits
	})
}

// punch connects to a peer by uTP at once, as the peer does to us, within the same bounds as other dials. The caller
// holds d.mu.
func (d *Download) punch(addr netip.AddrPort, now time.Time) {
	f := d.discovery
	if d.ended() || d.paused || d.progress.checking || !d.punches() || d.swarm.live+f.candidates.Dialling() >= d.maxPeers() {
		return
	}
	if f.client.targetAt(f, d.swarm.live, addr.Addr(), peerlist.FromPEX, now).After(now) {
		return
	}
	for _, q := range d.swarm.peers {
		if q.isAt(addr) {
			return
		}
	}
	news := f.add(addr, peerlist.FromPEX, "", now)
	if !d.client.mayDial(f, d.swarm.live, addr.Addr(), now) {
		return
	}
	if !f.candidates.Take(addr, news) {
		d.client.endDial()
		return
	}
	f.tried++
	f.tasks.Go(func() { f.dial(addr, peerlist.FromPEX, byUTP) })
}
