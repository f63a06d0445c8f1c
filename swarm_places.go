package torrent

import (
	"errors"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/peerlist"
)

// admitConnection reports whether there is a place for the connection, and no other to the same peer, and counts
// it if so. The caller holds d.mu.
func (d *Download) admitConnection(k *connection, now time.Time) bool {
	all := make([]peerlist.Connection, 0, len(d.swarm.peers))
	for _, p := range d.swarm.peers {
		if p.closing == nil {
			c := p.conn.identify(p.number)
			c.Age, c.Idle = now.Sub(p.joined), !p.gave()
			all = append(all, c)
		}
	}
	newcomer := k.identify(0)
	newcomer.Named = !k.incoming && d.discovery.candidates.Named(k.addr)
	newcomer.Again = !k.incoming && d.discovery.candidates.InVain(k.addr)
	twice, ok := peerlist.Admit(d.identity.id, newcomer, all)
	if !ok {
		return false
	}
	if twice != 0 {
		d.client.replacedPeer(k.addr.Addr())
		d.drop(errTwice, twice)
		return true
	}
	if k.incoming && d.swarm.places.HasLeftIdle(k.addr.Addr(), now) && !d.hasPlacesLeft(now) {
		return false // it lost its place lately because it gave nothing
	}
	crowded := peerlist.IsFull(newcomer, all)
	full := d.swarm.live+d.discovery.candidates.Dialling() >= d.maxPeers()
	mayFill, free := !crowded && !(full && peerlist.Crowded(newcomer, all)), d.freePlaces()
	if mayFill && d.swarm.places.MayFill(now, newcomer, free) && d.takePlace(k, now) {
		return true
	}
	if k.incoming && d.client.refusesPeer(d.swarm.live, k.addr.Addr(), now) {
		return false
	}
	out := d.swarm.places.Displaced(now, d.worths(now), newcomer, crowded)
	if !(mayFill && free > 0) {
		d.drop(errTurnover, out)
	}
	return out != 0 && d.takePlace(k, now)
}

// freePlaces returns how many places an incoming connection could take without displacing another. The caller holds d.mu.
func (d *Download) freePlaces() int {
	return min(d.maxPeers()-d.swarm.live, d.client.freePlaces(d.swarm.live))
}

// hasPlacesLeft reports whether there are free places and no candidate is due to be dialled for them. The caller
// holds d.mu.
func (d *Download) hasPlacesLeft(now time.Time) bool {
	_, _, waiting := d.discovery.candidates.First(now)
	return !waiting && d.swarm.live+d.discovery.candidates.Dialling() < d.maxPeers() && !d.client.allTaken(d.swarm.live) && !d.client.starves(now)
}

// quits records that a peer ends its connection. If all places were taken and it had not earned its own, it has had the grace of a
// newcomer. Otherwise peers that leave before it is over, and come back at once, would keep all places. The caller holds d.mu.
func (d *Download) quits(p *peer) {
	if p.closing == nil && p.earnedAt.IsZero() && (d.swarm.live >= d.maxPeers() || d.client.allTaken(d.swarm.live)) {
		d.swarm.places.PeerLeftIdle(p.conn.addr.Addr(), time.Now())
	}
}

// identify returns the properties of a connection that admission looks at. number identifies it.
func (k *connection) identify(number int) peerlist.Connection {
	return peerlist.Connection{ID: number, Addr: k.addr.Addr(), PeerID: k.theirs.PeerID, Incoming: k.incoming}
}

// gave reports whether the connection was useful. The caller holds p.d.mu.
func (p *peer) gave() bool { return p.useful || p.up.Total() > 0 }

// takePlace counts a connection, if there is a place for it here and in the client's budget. The caller holds d.mu.
func (d *Download) takePlace(k *connection, now time.Time) bool {
	if d.swarm.live >= d.maxPeers() {
		return false
	}
	if k.incoming {
		return d.client.mayJoin(d.swarm.live, k.addr.Addr(), now)
	}
	return d.client.joinedPeer(d.swarm.live, k.addr.Addr(), now)
}

// turnOver makes room for other peers if all places are taken: at once if one network has too many of them or hardly
// any peer earns its place, soon for candidates that had no place yet if some peers give little, otherwise from time to time. The
// caller holds d.mu.
func (d *Download) turnOver(now time.Time) {
	most := d.maxPeers()
	if d.client.allTaken(d.swarm.live) {
		most = min(most, d.swarm.live)
	}
	if addr, _, waiting := d.discovery.candidates.First(now); waiting && d.swarm.live >= most {
		worths := d.contenders(now)
		out := d.swarm.places.MakesRoom(now, worths, addr.Addr(), !d.sharing() && peerlist.Scarce(now, worths))
		if out == 0 && !d.sharing() && !d.discovery.candidates.Yielded(addr) {
			out = d.swarm.places.GivesLittle(now, worths, d.traffic.gate.Limited())
		}
		d.drop(errTurnover, out)
	}
	if now.Before(d.swarm.nextTurnover) {
		return
	}
	d.swarm.nextTurnover = now.Add(peerlist.TurnoverEvery)
	if _, waiting := d.discovery.candidates.Due(); waiting {
		d.drop(errTurnover, peerlist.TurnedOver(now, d.contenders(now), most)...)
	}
}

// shareOut gives up connections in favour of other downloads of the client that are below their share. If there are fewer
// connections than downloads, it drops a peer that is idle or has had its place for a while in favour of a download that has
// none. It also drops peers of networks that have too many of all connections, if others want them. The caller holds d.mu.
func (d *Download) shareOut(now time.Time) {
	if n := d.client.excess(d.swarm.live, now); n > 0 {
		d.drop(errShared, peerlist.WorstOfAll(now, d.worths(now), n)...)
	} else if d.swarm.live > 0 && d.client.starves(now) {
		d.drop(errTurnover, d.client.idlest(d.worths(now), now))
	} else if d.swarm.live > 0 && d.client.areWanted(now) {
		d.drop(errTurnover, d.client.surplus(d.worths(now), now))
	}
}

// contenders is worths, where candidates wait for a place. The caller holds d.mu.
func (d *Download) contenders(now time.Time) []peerlist.Worth {
	worths := d.worths(now)
	if d.discovery.candidates.NamedWaits() {
		peerlist.Contend(now, worths)
	}
	return worths
}

// worths returns the worth of each peer. Those that wait for a first slot of a seed have done nothing wrong: of these, a lot decides,
// because peers can choose addresses of a high priority. The caller holds d.mu.
func (d *Download) worths(now time.Time) (worths []peerlist.Worth) {
	worths = make([]peerlist.Worth, 0, len(d.swarm.peers))
	for _, p := range d.swarm.peers {
		if p.closing == nil {
			joined, priority := p.joined, d.discovery.candidates.Priority(p.conn.addr)
			given := float64(p.down.Total() + p.up.Total())
			if p.idler {
				joined = time.Time{}
			}
			waits := d.sharing() && p.peerInterested && p.unchokedAt.IsZero()
			if waits {
				priority = p.lot
			}
			worths = append(worths, peerlist.Worth{
				ID:       p.number,
				Addr:     p.conn.addr.Addr(),
				Keep:     d.discovery.candidates.Named(p.conn.addr),
				Joined:   joined,
				Earned:   p.earnedAt,
				Given:    p.earned,
				Mutual:   p.amInterested || p.peerInterested,
				Waits:    waits,
				Rate:     p.down.Rate(now) + p.up.Rate(now),
				Mean:     given / max(time.Second, now.Sub(p.joined)).Seconds(),
				Priority: priority,
				Awaited:  p.amInterested && !p.supply.Snubbed(),
				Lot:      p.networkLot,
			})
		}
	}
	if !d.sharing() {
		peerlist.Spare(now, worths)
	}
	return worths
}

// earn records whether a peer has earned its place again: by the bytes that it gave us, and by those that it
// received, unless it does not pass them on. The caller holds d.mu.
func (d *Download) earn(p *peer, now time.Time) {
	given := p.down.Total()
	if !d.uploading.spread.Hoards(p.number, d.t.layout.PieceLength()) {
		given += p.up.Total()
	}
	if given-p.earned >= peerlist.EarnedBytes {
		p.earned, p.earnedAt = given, now
	}
}

// drop ends the connections with the given numbers; no peer has 0. The caller holds d.mu.
func (d *Download) drop(why error, numbers ...int) {
	for _, p := range d.swarm.peers {
		if slices.Contains(numbers, p.number) {
			if why == errTurnover && p.earnedAt.IsZero() {
				d.swarm.places.PeerLeftIdle(p.conn.addr.Addr(), time.Now())
			}
			p.stopLocked(why)
		}
	}
}

var (
	errTwice    = errors.New("connected twice")
	errUseless  = errors.New("neither side is interested")
	errTurnover = errors.New("makes room for another")
	errShared   = errors.New("makes room for another download")
)
