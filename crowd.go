package torrent

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
)

// maxPerAddress is how many connections of one download may be to one public address.
const maxPerAddress = 3

// admits tells whether there is a place for the connection, and no other to the same peer, and counts
// it if so. Where both ends dialled each other at once, both keep the connection made by the lower
// peer id.
func (d *Download) admits(k *connection, now time.Time) bool {
	same := 0
	var twice *peer
	for _, p := range d.peers {
		if p.closing != nil || p.conn.addr.Addr() != k.addr.Addr() {
			continue
		}
		same++
		if p.conn.theirs.PeerID == k.theirs.PeerID && p.conn.incoming != k.incoming {
			oursIsLower := string(d.identity.id[:]) < string(k.theirs.PeerID[:])
			if k.incoming == oursIsLower {
				return false
			}
			twice = p
		}
	}
	if same >= maxPerAddress {
		// Any number of peers may stand behind a local address, but they take no place from others, nor
		// one that others are just dialled for.
		if !netaddr.IsLocal(k.addr.Addr()) || k.incoming && d.live+d.cand.dialling() >= d.maxPeers() {
			return false
		}
	}
	if twice != nil {
		twice.stopLocked(errTwice)
	}
	return d.takePlace(k, now) || (d.dropUseless(now) || d.dropCrowding(k.addr.Addr(), now)) && d.takePlace(k, now)
}

// takePlace counts a connection, if there is a place for it here and in the client's budget.
func (d *Download) takePlace(k *connection, now time.Time) bool {
	if d.live >= d.maxPeers() {
		return false
	}
	if k.incoming {
		return d.client.mayJoin(d.live, now)
	}
	d.client.joinedPeer() // it was reckoned with when it was dialled
	return true
}

// dropUseless drops a peer of which neither side wants anything, if there is one.
func (d *Download) dropUseless(now time.Time) bool {
	out := worst(now, slices.DeleteFunc(d.worths(now), func(p peerWorth) bool { return p.mutual }), 1)
	d.drop(out, errTurnover)
	return len(out) > 0
}

// dropCrowding drops a peer for one at another address, however new it is, if there is one whose address has
// more places than a public one may have, and that other has not.
func (d *Download) dropCrowding(other netip.Addr, now time.Time) bool {
	places := make(map[netip.Addr]int)
	crowding := make(map[int]bool)
	for _, p := range d.peers {
		if p.closing == nil {
			places[p.conn.addr.Addr()]++
		}
	}
	for _, p := range d.peers {
		crowding[p.number] = places[p.conn.addr.Addr()] > maxPerAddress
	}
	if places[other] >= maxPerAddress {
		return false
	}
	worths := slices.DeleteFunc(d.worths(now), func(p peerWorth) bool { return !crowding[p.id] })
	for k := range worths {
		worths[k].joined = time.Time{}
	}
	out := worst(now, worths, 1)
	d.drop(out, errTurnover)
	return len(out) > 0
}

// turnOver makes room for others where the download is crowded.
func (d *Download) turnOver(now time.Time) {
	if addr, waiting := d.cand.first(now); waiting && d.live >= d.maxPeers() {
		d.dropCrowding(addr.Addr(), now)
	}
	if now.Before(d.nextTurnover) {
		return
	}
	d.nextTurnover = now.Add(turnoverRound)
	n := turnover(d.live, d.maxPeers())
	if _, waiting := d.cand.due(); n > 0 && waiting {
		d.drop(worst(now, d.worths(now), n), errTurnover)
	}
}

// shareOut gives up connections that other downloads of the client have a better claim to.
func (d *Download) shareOut(now time.Time) {
	n := d.client.excess(d.live, now)
	if n == 0 {
		return
	}
	worths := d.worths(now)
	for k := range worths {
		worths[k].keep, worths[k].joined = false, time.Time{} // nobody is spared
	}
	d.drop(worst(now, worths, n), errShared)
}

// worths is what each peer is worth to us.
func (d *Download) worths(now time.Time) (worths []peerWorth) {
	for _, p := range d.peers {
		if p.closing == nil {
			worths = append(worths, peerWorth{
				id:       p.number,
				keep:     p.from == sourceUser,
				joined:   p.joined,
				mutual:   p.amInterested || p.peerInterested,
				rate:     p.down.Rate(now) + p.up.Rate(now),
				priority: d.cand.priority(p.conn.addr),
			})
		}
	}
	return worths
}

// drop ends the connections of those numbers.
func (d *Download) drop(numbers []int, why error) {
	for _, p := range d.peers {
		if slices.Contains(numbers, p.number) {
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
