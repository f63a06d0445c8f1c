package torrent

import (
	"time"

	"github.com/shoal-go/torrent/internal/peerlist"
)

// take runs the connection to a peer until it ends, if there is a place for it.
func (r *resolver) take(k *connection, _ peerlist.Source) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	twice, crowded, ok := r.admit(k, now)
	if !ok || !r.replace(twice, k) && (crowded && !r.neighbourLeaves(k, now) || !r.client.joinedPeer(len(r.peers), k.addr.Addr(), now)) {
		r.discovery.candidates.Left(k.addr, ok, now)
		return false
	}
	r.begin(k, now)
	return true
}

// accepts sets whether accept takes connections.
func (r *resolver) accepts(yes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.accepting = yes
}

// connections returns how many connections the resolver has, and whether accept takes more.
func (r *resolver) connections() (n int, accepting bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.peers), r.accepting
}

// accept is like take for an incoming connection, and reports whether it is wanted.
func (r *resolver) accept(k *connection, _ peerlist.Source) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if !r.accepting || r.discovery.candidates.Banned(k.addr) {
		return false
	}
	twice, crowded, ok := r.admit(k, now)
	if !ok || !r.replace(twice, k) && !r.findPlace(k, crowded, now) {
		return false
	}
	r.accepted++
	r.begin(k, now)
	return true
}

// admit reports whether a connection is wanted beside the others, which of them it replaces, and whether another one to its address has to
// make room, as in a download. The caller holds r.mu.
func (r *resolver) admit(k *connection, now time.Time) (twice int, crowded, ok bool) {
	var all []peerlist.Connection
	for p := range r.peers {
		if p.closing == nil {
			c := p.conn.identify(p.id)
			c.Age, c.Idle = now.Sub(p.joined), p.earned.IsZero()
			all = append(all, c)
		}
	}
	newcomer := k.identify(0)
	newcomer.Named = !k.incoming && r.discovery.candidates.Named(k.addr)
	newcomer.Again = !k.incoming && r.discovery.candidates.InVain(k.addr)
	twice, ok = peerlist.Admit(r.client.identity(r.discovery.hashes.first).id, newcomer, all)
	return twice, peerlist.IsFull(newcomer, all), ok
}

// neighbourLeaves ends a connection to the address of another one, in favour of this. The caller holds r.mu.
func (r *resolver) neighbourLeaves(k *connection, now time.Time) bool {
	out := r.places.Displaced(now, r.worths(), k.identify(0), true)
	r.end(out, errTurnover)
	return out != 0
}

// replace counts a connection that takes the place of another one to the same peer, which it ends. It reports false if that is 0,
// none. The caller holds r.mu.
func (r *resolver) replace(twice int, k *connection) bool {
	if twice == 0 {
		return false
	}
	r.client.replacedPeer(k.addr.Addr())
	r.end(twice, errTwice)
	return true
}

// findPlace counts an incoming connection if there is a place for it. Half of the places are for peers that the resolver dials. If
// all others are taken, or its address is crowded, one of the incoming connections makes room, as in a download. The caller holds r.mu.
func (r *resolver) findPlace(k *connection, crowded bool, now time.Time) bool {
	live := 0
	var dialled []peerlist.Worth // peers of incoming connections
	for p := range r.peers {
		if p.closing != nil {
			continue
		}
		live++
		if p.conn.incoming {
			dialled = append(dialled, r.worth(p))
		}
	}
	if !crowded && r.accepted < r.mostAccepted() && r.client.mayJoin(live, k.addr.Addr(), now) {
		return true
	}
	if r.places.HasLeftIdle(k.addr.Addr(), now) {
		return false // it recently lost its place because it sent nothing
	}
	if r.client.refusesPeer(live, k.addr.Addr(), now) {
		return false
	}
	out := r.places.Displaced(now, dialled, k.identify(0), crowded)
	if out == 0 {
		return false
	}
	r.end(out, errTurnover)
	return r.client.mayJoin(live-1, k.addr.Addr(), now)
}

// mostAccepted is how many incoming connections there may be.
func (r *resolver) mostAccepted() int { return max(r.o.maxPeers()/2, 1) }

// quits records that an incoming connection ends, as Download.quits does, whichever end it was. The caller holds r.mu.
func (r *resolver) quits(p *metadataConn, why error) {
	ours := why == errTwice || why == errShared
	if !ours && p.conn.incoming && p.earned.IsZero() && (r.accepted >= r.mostAccepted() || r.client.allTaken(len(r.peers))) {
		r.places.PeerLeftIdle(p.conn.addr.Addr(), time.Now())
	}
}
