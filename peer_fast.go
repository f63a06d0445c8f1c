package torrent

import (
	"crypto/sha1"
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/choker"
	"github.com/shoal-go/torrent/internal/wire"
)

const (
	// fastSetSize is how many pieces a peer may ask for in spite of a choke (BEP 6).
	fastSetSize = 5
	// allowedTimes is how often each byte of them may be asked for from one network: some may have
	// been cancelled.
	allowedTimes = 2
	// maxFastSets is of how many networks it is remembered what they took.
	maxFastSets = 1000
	// fastSetBelow is how many pieces a peer may have to still be offered some.
	fastSetBelow = fastSetSize
)

// allowedFast is the set of k pieces that the peer at ip may ask for in spite of a choke: the same
// for all peers of one /24, whoever computes it (BEP 6). Only IPv4 addresses have one.
func allowedFast(ip netip.Addr, infoHash Hash, pieces, k int) []uint32 {
	if !ip.Is4() {
		return nil
	}
	a := ip.As4()
	a[3] = 0
	x := append(a[:], infoHash[:]...)
	var set []uint32
	for len(set) < min(k, pieces) {
		sum := sha1.Sum(x)
		x = sum[:]
		for i := 0; i+4 <= len(x) && len(set) < min(k, pieces); i += 4 {
			index := binary.BigEndian.Uint32(x[i:]) % uint32(pieces)
			if !slices.Contains(set, index) {
				set = append(set, index)
			}
		}
	}
	return set
}

// sendAllowedFast lets a peer that has next to nothing ask for a few pieces that we have, so that it
// soon has something to give. What it may take of them it shares with all of its /24, and with those
// who come after it: who calls again and again, from one address or many, gets no more.
func (p *peer) sendAllowedFast() {
	d := p.d
	ip := p.conn.addr.Addr()
	if d.picker.Verified().Count() == 0 || !ip.Is4() {
		return
	}
	network, _ := ip.Prefix(24)
	if _, known := d.uploading.fastSets[network]; !known {
		if d.uploading.fastSets == nil || len(d.uploading.fastSets) >= maxFastSets {
			d.uploading.fastSets = make(map[netip.Prefix]map[uint32]int64)
		}
		d.uploading.fastSets[network] = make(map[uint32]int64)
		for _, i := range allowedFast(ip, d.t.infoHash, d.t.NumPieces(), fastSetSize) {
			d.uploading.fastSets[network][i] = allowedTimes * d.t.layout.PieceSize(int(i))
		}
	}
	p.allowed = d.uploading.fastSets[network]
	for _, i := range slices.Sorted(maps.Keys(p.allowed)) {
		if d.picker.Verified().Has(int(i)) && p.allowed[i] >= d.t.layout.PieceSize(int(i)) {
			p.send(func(b []byte) []byte { return wire.AppendAllowedFast(b, i) })
		}
	}
}

// takeAllowedFast tells whether a choke does not stop a request of the peer. That ends once the peer
// has enough of its own to trade with, and for each piece once all of it was sent often enough.
func (p *peer) takeAllowedFast(r request) bool {
	if p.supply.HasAll() || p.supply.Count() > fastSetBelow {
		p.allowed = nil
	}
	if p.allowed[r.piece] < int64(r.length) {
		return false
	}
	p.allowed[r.piece] -= int64(r.length)
	return true
}

const (
	// suggestAtOnce is how many pieces a peer has been suggested and has not got.
	suggestAtOnce = 4
	// suggestPause is how long nothing is looked for after nothing was found.
	suggestPause = 30 * time.Second
)

// A suggester tells each peer of a seed which pieces to ask for: such as nobody else has, or only a
// hoarder, and to each its own (BEP 6). Left to themselves peers draw lots among what is equally rare, and what two of them
// draw the seed sends twice, while the swarm waits for the rest. The download's mutex guards it.
type suggester struct {
	given bits.Set  // pieces that somebody asked us for or was suggested
	next  int       // where to look on
	idle  time.Time // nothing is to be found until then
}

// give notes that a peer asks for piece i.
func (s *suggester) give(i, pieces int) {
	if s.given.Len() == 0 {
		s.given = bits.New(pieces)
	}
	s.given.Add(i)
}

// pick is one of so many pieces to suggest, or -1. avail is how many peers have a piece, and sp knows who keeps it.
func (s *suggester) pick(pieces int, avail func(int) uint16, sp *choker.Spread, pieceLength int64, now time.Time) int {
	if now.Before(s.idle) {
		return -1
	}
	for range pieces {
		i := s.next
		s.next = (i + 1) % pieces
		if n := avail(i); n == 0 && !s.given.Has(i) || n == 1 && sp.Reclaim(i, pieceLength) {
			s.give(i, pieces)
			return i
		}
	}
	s.given = bits.Set{} // what somebody was given and did not get is worth suggesting again
	s.idle = now.Add(suggestPause)
	return -1
}

// giveUp notes that pieces are not to be had by whom they were suggested to.
func (s *suggester) giveUp(pieces []int) {
	for _, i := range pieces {
		if s.given.Has(i) {
			s.given.Remove(i)
			s.idle = time.Time{}
		}
	}
}

// suggest has a peer that may ask ask for what is worth sending.
func (d *Download) suggest(p *peer, now time.Time) {
	if !p.fast || !d.picker.Verified().Full() || len(d.swarm.peers) < 2 {
		return
	}
	for len(p.suggested) < suggestAtOnce {
		i := d.uploading.suggester.pick(d.t.NumPieces(), d.picker.Availability, &d.uploading.spread, d.t.layout.PieceLength(), now)
		if i < 0 {
			return
		}
		p.suggested = append(p.suggested, i)
		p.send(func(b []byte) []byte { return wire.AppendSuggest(b, uint32(i)) })
	}
}

// tookSuggestion follows on a peer that says that it has piece i.
func (d *Download) tookSuggestion(p *peer, i int, now time.Time) {
	if k := slices.Index(p.suggested, i); k >= 0 {
		p.suggested = slices.Delete(p.suggested, k, k+1)
		if !p.amChoking {
			d.suggest(p, now)
		}
	}
}
