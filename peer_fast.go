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
	"github.com/shoal-go/torrent/internal/outbox"
	"github.com/shoal-go/torrent/internal/wire"
)

const (
	// fastSetSize is how many allowed-fast pieces a peer gets (BEP 6).
	fastSetSize = 5
	// allowedTimes is how often each of their bytes may be requested from one network. Some requests may have been
	// cancelled.
	allowedTimes = 2
	// maxFastSets is for how many networks it is remembered what they requested.
	maxFastSets = 1000
	// fastSetBelow is how many pieces a peer may have and still use its allowed-fast ones.
	fastSetBelow = fastSetSize
)

// allowedFast returns the set of k pieces that the peer at ip may request while it is choked (BEP 6). It is the same for
// all peers of one /24, and for every client that computes it. Only IPv4 addresses have one.
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

// sendAllowedFast lets a peer that has few pieces request some of ours while it is choked, so that it soon has something
// to give. How many bytes it may take is shared by all peers of its /24, now and later: to connect again and again, from
// one address or many, gains nothing.
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

// takeAllowedFast reports whether a request is answered while the peer is choked. That ends once the peer has enough
// pieces to trade with, and for each piece once it was sent often enough.
func (p *peer) takeAllowedFast(r outbox.Request) bool {
	if p.supply.HasAll() || p.supply.Count() > fastSetBelow {
		p.allowed = nil
	}
	if p.allowed[r.Piece] < int64(r.Length) {
		return false
	}
	p.allowed[r.Piece] -= int64(r.Length)
	return true
}

const (
	// suggestAtOnce is how many suggested pieces a peer may lack.
	suggestAtOnce = 4
	// suggestPause is how long to wait after nothing worth suggesting was found.
	suggestPause = 30 * time.Second
)

// A suggester chooses which pieces a seed suggests to each peer: pieces that no other peer has, or only a hoarder, and
// each to one peer (BEP 6). Without suggestions peers draw lots among equally rare pieces, and what two of them draw is
// sent twice while the swarm waits for the rest. The download's mutex guards it.
type suggester struct {
	given bits.Set  // pieces that were requested from us or suggested
	next  int       // where to go on looking
	idle  time.Time // until then there is nothing to find
}

// give records that a peer requests piece i.
func (s *suggester) give(i, pieces int) {
	if s.given.Len() == 0 {
		s.given = bits.New(pieces)
	}
	s.given.Add(i)
}

// pick returns a piece to suggest, or -1. avail is how many peers have a piece, and sp knows which of them keep it.
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
	s.given = bits.Set{} // a piece that a peer was given and did not get is worth suggesting again
	s.idle = now.Add(suggestPause)
	return -1
}

// giveUp records that the peer to which pieces were suggested will not get them.
func (s *suggester) giveUp(pieces []int) {
	for _, i := range pieces {
		if s.given.Has(i) {
			s.given.Remove(i)
			s.idle = time.Time{}
		}
	}
}

// suggest suggests pieces that are worth sending to a peer that may request them.
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

// tookSuggestion acts on a peer having piece i, if that was suggested to it.
func (d *Download) tookSuggestion(p *peer, i int, now time.Time) {
	if k := slices.Index(p.suggested, i); k >= 0 {
		p.suggested = slices.Delete(p.suggested, k, k+1)
		if !p.amChoking {
			d.suggest(p, now)
		}
	}
}
