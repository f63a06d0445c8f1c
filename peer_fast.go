package torrent

import (
	"maps"
	"net/netip"
	"slices"
	"time"

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

// sendAllowedFast lets a peer that has few pieces request some of ours while it is choked, so that it soon has something
// to give. How many bytes it may take is shared by all peers of its /24, now and later: to connect again and again, from
// one address or many, gains nothing. The caller holds p.d.mu.
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
		for _, i := range choker.AllowedFast(ip, d.t.infoHash, d.t.NumPieces(), fastSetSize) {
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
// pieces to trade with, and for each piece once it was sent often enough. The caller holds p.d.mu.
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

// suggestAtOnce is how many suggested pieces a peer may lack.
const suggestAtOnce = 4

// suggest suggests pieces that are worth sending to a peer that may request them. The caller holds d.mu.
func (d *Download) suggest(p *peer, now time.Time) {
	if !p.fast || !d.picker.Verified().Full() || len(d.swarm.peers) < 2 {
		return
	}
	for len(p.suggested) < suggestAtOnce {
		i := d.uploading.suggester.Pick(d.t.NumPieces(), d.picker.Availability, &d.uploading.spread, d.t.layout.PieceLength(), now)
		if i < 0 {
			return
		}
		p.suggested = append(p.suggested, i)
		p.send(func(b []byte) []byte { return wire.AppendSuggest(b, uint32(i)) })
	}
}

// tookSuggestion acts on a peer having piece i, if that was suggested to it. The caller holds d.mu.
func (d *Download) tookSuggestion(p *peer, i int, now time.Time) {
	if k := slices.Index(p.suggested, i); k >= 0 {
		p.suggested = slices.Delete(p.suggested, k, k+1)
		if !p.amChoking {
			d.suggest(p, now)
		}
	}
}
