package torrent

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/hashfetch"
	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/outbox"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/picker"
	"github.com/shoal-go/torrent/internal/ratelimit"
	"github.com/shoal-go/torrent/internal/tracker"
	"github.com/shoal-go/torrent/internal/wire"
)

// swarm holds the peers that a download is connected to.
type swarm struct {
	peers        []*peer
	live         int // of these, how many are not closing
	numbered     int // connections so far
	nextTurnover time.Time
	places       peerlist.Places
	unmet        []netip.AddrPort                 // candidates that peers are to be asked to introduce us to, the first to fail first
	work         ratelimit.Accounts[netip.Prefix] // of peers that left, by address or /64
}

// hostOf returns the prefix whose peers share one account of work, also when they reconnect. ok is false for a local address,
// which any number of peers may share.
func hostOf(a netip.Addr) (host netip.Prefix, ok bool) { return netaddr.Host(a), !netaddr.IsLocal(a) }

// AddPeers adds peers to try. Like Options.Peers, they are never given up.
func (d *Download) AddPeers(peers ...netip.AddrPort) {
	d.discovery.found(peerlist.FromUser, "", peers...)
}

// AddTrackers adds trackers, each in a tier of its own, like those of Options.Trackers. Trackers that are already known do not
// change. A private torrent is announced to one tracker at a time (BEP 27): to the new ones only when those before them fail.
func (d *Download) AddTrackers(urls ...string) { d.discovery.addTrackers(urls) }

// Announce asks all sources of peers now, as far as they allow: a tracker no sooner than its `min interval`.
func (d *Download) Announce() { d.discovery.announce() }

// droppedTracker ends the connections of a private torrent that has moved to another tracker, except to peers that
// the user named (BEP 27). Peers that connected to us had our address from the old tracker, too.
func (d *Download) droppedTracker(url string) {
	now := time.Now()
	d.mu.Lock()
	defer d.unlock(now)
	d.discovery.candidates.Forget(url)
	for _, p := range d.swarm.peers {
		if !d.discovery.candidates.Has(p.ext.listens) {
			p.stopLocked(fmt.Errorf("tracker %s is no longer used", url))
		}
	}
}

// seeds reports whether all of the content is here.
func (d *Download) seeds() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.picker.Verified().Full()
}

// announceProgress returns the progress of the download as announced to trackers.
func (d *Download) announceProgress() tracker.Progress {
	d.mu.Lock()
	defer d.mu.Unlock()
	return tracker.Progress{
		Uploaded:    d.o.Uploaded + d.traffic.uploaded,
		Downloaded:  d.o.Downloaded + d.traffic.downloaded,
		Left:        d.selection.choice.left(),
		PartialSeed: d.progress.complete && !d.picker.Verified().Full(),
	}
}

// addPeer makes a peer of a connection. It returns false if the connection is not wanted.
func (d *Download) addPeer(k *connection, from peerlist.Source) bool {
	now := time.Now()
	d.mu.Lock()
	defer d.unlock(now)
	if d.ended() || d.progress.checking || d.paused || d.discovery.candidates.Banned(k.addr) || !d.admitConnection(k, now) {
		if !k.incoming {
			d.refused(k, now)
		}
		return false
	}
	d.swarm.numbered++
	p := &peer{
		d: d, conn: k, number: d.swarm.numbered, from: from, joined: now, lot: d.rng.Uint32(),
		idler:       k.incoming && d.swarm.places.HasLeftIdle(k.addr.Addr(), now),
		networkLot:  peerlist.NetworkLot(d.identity.lot, k.addr.Addr()),
		rd:          wire.NewReader(k, (d.t.NumPieces()+7)/8),
		fast:        k.theirs.Fast(),
		extended:    k.theirs.Extended(),
		amChoking:   true,
		hashesAsked: hashfetch.NewPeer(),
		ended:       make(chan struct{}),
		work:        ratelimit.NewAccount(workRate, workAtOnce, now),
	}
	p.holder = d.client.account.Join(func() { go p.stop(errHoldsMost) })
	charge(p.rd, p.holder)
	p.out = outbox.New(p.holder)
	if host, ok := hostOf(k.addr.Addr()); ok {
		p.work = d.swarm.work.Open(host, p.work)
	}
	p.before, p.withheld = d.uploading.debts.Of(k.addr.Addr())
	p.supply = picker.Supplier{Owner: p, Origin: d.discovery.candidates.Origin(k.addr), Host: netaddr.Host(k.addr.Addr()), Choking: true, Careful: d.traffic.gate.Limited()}
	if !k.incoming {
		p.ext.listens = k.addr
	}
	d.picker.Join(&p.supply)
	d.swarm.peers = append(d.swarm.peers, p)
	d.swarm.live++
	if len(d.swarm.peers) == 1 {
		d.discovery.wakeSources(d.progress.hungry)
	}
	p.greet()
	d.life.tasks.Go(p.run)
	d.emit(Event{Kind: PeerConnected, Peer: k.addr})
	d.logLater(func() {
		d.log.Debug("connected", "peer", k.addr, "incoming", k.incoming, "encrypted", k.encrypted)
	})
	d.signal()
	return true
}

// refused records that a connection that we made is not wanted. If the peer is connected to us already, we have learned where it
// listens. Its peer id alone does not prove that it is the same peer, so the address is tried again. The caller holds d.mu.
func (d *Download) refused(k *connection, now time.Time) {
	for _, p := range d.swarm.peers {
		if p.closing == nil && p.conn.incoming && p.conn.theirs.PeerID == k.theirs.PeerID && p.conn.addr.Addr() == k.addr.Addr() {
			if !p.ext.listens.IsValid() {
				p.ext.listens = k.addr
			}
			d.discovery.candidates.Left(k.addr, false, now)
			return
		}
	}
	d.discovery.candidates.Left(k.addr, true, now)
}

// listensAt reports whether a connected peer is known to listen at an address. The caller holds d.mu.
func (d *Download) listensAt(a netip.AddrPort) bool {
	return slices.ContainsFunc(d.swarm.peers, func(p *peer) bool { return p.ext.listens == a })
}

// removePeer forgets a peer whose connection has ended.
func (d *Download) removePeer(p *peer) {
	now := time.Now()
	d.mu.Lock()
	defer d.unlock(now)
	d.traffic.gate.Refund(d.picker.Leave(&p.supply))
	d.hashing.fetch.Leave(p.hashesAsked)
	d.askHashes(now)
	d.uploading.suggester.GiveUp(p.suggested)
	d.uploading.spread.Forget(p.number)
	p.out.Close()
	p.holder.Leave()
	if host, ok := hostOf(p.conn.addr.Addr()); ok {
		p.work.Earn(p.credit.Swap(0))
		d.swarm.work.Close(host, p.work, now)
	}
	d.uploading.debts.Left(p.conn.addr.Addr(), d.chokeState(p, now), now)
	d.swarm.peers = slices.DeleteFunc(d.swarm.peers, func(q *peer) bool { return q == p })
	if p.ext.listens.IsValid() && !d.listensAt(p.ext.listens) {
		gave := p.gave() || p.ext.metadataServed > 0 || d.paused
		if p.closing == errBothSeeds || !gave && d.sated() && !d.picker.Verified().Full() {
			d.discovery.candidates.Sated(p.ext.listens, now)
			if !d.sated() {
				d.discovery.candidates.Recall(now) // we want something again by now
			}
		} else {
			if p.closing == errTurnover {
				d.discovery.candidates.MadeRoom(p.ext.listens)
			}
			d.discovery.candidates.Left(p.ext.listens, gave, now)
		}
	}
	d.pending.released, d.pending.rechoke = true, true
	if len(d.swarm.peers) == 0 {
		d.discovery.wakeSources(true)
	}
	d.emit(Event{Kind: PeerGone, Peer: p.conn.addr, Err: p.closing})
	d.logLater(func() { d.log.Debug("disconnected", "peer", p.conn.addr, "why", p.closing) })
	d.signal()
}

// closePeers ends all connections.
func (d *Download) closePeers() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.swarm.peers {
		p.stopLocked(ErrClosed)
	}
}

// disconnect ends the download's connections that are lost.
func (d *Download) disconnect(lost func(*connection) bool) {
	now := time.Now()
	d.mu.Lock()
	defer d.unlock(now)
	for _, p := range d.swarm.peers {
		if lost(p.conn) {
			p.stopLocked(errNetworkChanged)
		}
	}
}

// ban bans the peers at the origins of false blocks of a piece, and ends their connections. A web seed is allowed one piece. The
// caller holds d.mu.
func (d *Download) ban(piece int, liars []any) {
	for _, l := range liars {
		if w, ok := l.(*webSeed); ok {
			w.sentFalsePiece(piece, time.Now())
			continue
		}
		addr := l.(netip.AddrPort) // a peer's origin
		d.emit(Event{Kind: PeerBanned, Peer: addr, Err: errBanned})
		d.logLater(func() { d.log.Warn("banned", "peer", addr) })
		d.discovery.candidates.Ban(addr)
		for _, p := range d.swarm.peers {
			if d.discovery.candidates.Banned(p.conn.addr) {
				d.discovery.candidates.Disown(p.ext.listens)
				p.stopLocked(errBanned)
			}
		}
	}
	if len(liars) == 0 {
		return
	}
	d.picker.Distrust(d.isBanned)
	if !d.exposes() { // otherwise blocks can be checked by their own hashes, so the right blocks of a liar are kept
		d.pending.disown, d.pending.released = true, true
	}
}

// isBanned reports whether the origin of blocks is a banned peer. The caller holds d.mu.
func (d *Download) isBanned(origin any) bool {
	addr, ok := origin.(netip.AddrPort)
	return ok && d.discovery.candidates.Banned(addr)
}

// disown drops all unverified blocks that banned peers sent, so that they are fetched again. The caller holds d.mu.
func (d *Download) disown() {
	for _, id := range d.picker.Disown(d.isBanned) {
		d.dropBlock(id)
	}
}

// Ban ends the connections to an address. As long as the download runs, no connection to or from any of its ports is
// made or accepted, even if Options.Peers or AddPeers name it.
func (d *Download) Ban(addr netip.Addr) {
	addr = addr.Unmap()
	if !addr.IsValid() {
		return
	}
	d.mu.Lock()
	defer d.unlock(time.Now())
	d.discovery.candidates.BanHost(addr)
	d.emit(Event{Kind: PeerBanned, Peer: netip.AddrPortFrom(addr, 0), Err: errBannedByUser})
	for _, p := range d.swarm.peers {
		if d.discovery.candidates.Banned(p.conn.addr) {
			p.stopLocked(errBannedByUser)
		}
	}
}

var errBannedByUser = errors.New("banned by the user")

var errHoldsMost = errors.New("makes us hold more memory than any other peer, beyond what it gave")

var errBanned = errors.New("sent a false block")
