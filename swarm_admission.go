package torrent

import (
	"errors"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/peerlist"
)

// admits reports whether there is a place for the connection, and no other to the same peer, and counts
// it if so. The caller holds d.mu.
func (d *Download) admits(k *connection, from peerlist.Source, now time.Time) bool {
	var all []peerlist.Connection
	for _, p := range d.swarm.peers {
		if p.closing == nil {
			c := p.conn.identify(p.number)
			c.Old, c.Idle = now.Sub(p.joined) > peerlist.AtOnce, !p.gave()
			all = append(all, c)
		}
	}
	newcomer := k.identify(0)
	newcomer.Named = !k.incoming && from == peerlist.FromUser
	twice, ok := peerlist.Admit(d.identity.id, newcomer, all, d.swarm.live+d.discovery.cand.Dialling() >= d.maxPeers())
	if !ok {
		return false
	}
	d.drop(errTwice, twice)
	if k.incoming && d.swarm.idlers.Has(k.addr.Addr(), now) && !d.hasPlacesLeft(now) {
		return false // it had a place lately, and made nothing of it
	}
	if d.takePlace(k, now) {
		return true
	}
	out, ok := peerlist.Displaced(now, d.worths(now), k.addr.Addr())
	if ok {
		d.drop(errTurnover, out)
	}
	return ok && d.takePlace(k, now)
}

// hasPlacesLeft reports whether there are places that no candidate is to have. The caller holds d.mu.
func (d *Download) hasPlacesLeft(now time.Time) bool {
	_, _, waiting := d.discovery.cand.First(now)
	return !waiting && d.swarm.live+d.discovery.cand.Dialling() < d.maxPeers()
}

// identify is what admission looks at in the connection of a number.
func (k *connection) identify(number int) peerlist.Connection {
	return peerlist.Connection{ID: number, Addr: k.addr.Addr(), PeerID: k.theirs.PeerID, Incoming: k.incoming}
}

// gave reports whether anything of use came of the connection. The caller holds p.d.mu.
func (p *peer) gave() bool { return p.useful || p.up.Total() > 0 }

// takePlace counts a connection, if there is a place for it here and in the client's budget. The caller holds d.mu.
func (d *Download) takePlace(k *connection, now time.Time) bool {
	if d.swarm.live >= d.maxPeers() {
		return false
	}
	if k.incoming {
		return d.client.mayJoin(d.swarm.live, now)
	}
	d.client.joinedPeer() // it was counted when it was dialled
	return true
}

// turnOver makes room for others where there is none: at once where a crowd has the places or hardly any peer earns
// its own, else now and then. The caller holds d.mu.
func (d *Download) turnOver(now time.Time) {
	if addr, _, waiting := d.discovery.cand.First(now); waiting && (d.swarm.live >= d.maxPeers() || d.client.allTaken(d.swarm.live)) {
		peers, displaced := d.worths(now), peerlist.Crowding
		if !d.sharing() && peerlist.Scarce(now, peers) {
			displaced = peerlist.Displaced
		}
		if out, ok := displaced(now, peers, addr.Addr()); ok {
			d.drop(errTurnover, out)
		}
	}
	if now.Before(d.swarm.nextTurnover) {
		return
	}
	d.swarm.nextTurnover = now.Add(peerlist.TurnoverEvery)
	n := peerlist.Turnover(d.swarm.live, d.maxPeers())
	if _, waiting := d.discovery.cand.Due(); n > 0 && waiting {
		d.drop(errTurnover, peerlist.Worst(now, d.worths(now), n)...)
	}
}

// shareOut gives up connections that other downloads of the client have a better claim to. The caller holds d.mu.
func (d *Download) shareOut(now time.Time) {
	if n := d.client.excess(d.swarm.live, now); n > 0 {
		d.drop(errShared, peerlist.WorstOfAll(now, d.worths(now), n)...)
	}
}

// worths returns what each peer is worth to us. The caller holds d.mu.
func (d *Download) worths(now time.Time) (worths []peerlist.Worth) {
	for _, p := range d.swarm.peers {
		if p.closing == nil {
			worths = append(worths, peerlist.Worth{
				ID:       p.number,
				Addr:     p.conn.addr.Addr(),
				Keep:     p.from == peerlist.FromUser,
				Joined:   p.joined,
				Earned:   p.earnedAt,
				Mutual:   p.amInterested || p.peerInterested,
				Rate:     p.down.Rate(now) + p.up.Rate(now),
				Priority: d.discovery.cand.Priority(p.conn.addr),
			})
		}
	}
	return worths
}

// earn records whether a peer has earned its place again: by what it gave, and by what it was given, unless that
// ends with it. The caller holds d.mu.
func (d *Download) earn(p *peer, now time.Time) {
	given := p.down.Total()
	if !d.uploading.spread.Hoards(p.number, d.t.layout.PieceLength()) {
		given += p.up.Total()
	}
	if given-p.earned >= peerlist.EarnedBytes {
		p.earned, p.earnedAt = given, now
	}
}

// drop ends the connections with the given numbers. The caller holds d.mu.
func (d *Download) drop(why error, numbers ...int) {
	for _, p := range d.swarm.peers {
		if slices.Contains(numbers, p.number) {
			if why == errTurnover && p.earnedAt.IsZero() {
				d.swarm.idlers.Add(p.conn.addr.Addr(), time.Now())
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
