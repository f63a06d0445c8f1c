package torrent

import (
	"crypto/sha1"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/shoal-go/torrent/internal/wire"
)

const (
	// fastSetSize is how many pieces a peer may ask for in spite of a choke (BEP 6).
	fastSetSize = 5
	// allowedTimes is how often each byte of them may be asked for: some may have been cancelled.
	allowedTimes = 2
	// maxAllowedFast bounds how many such pieces of a peer's own saying are kept.
	maxAllowedFast = 64
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
// soon has something to give.
func (p *peer) sendAllowedFast() {
	d := p.d
	if d.sched.have.Count() == 0 {
		return
	}
	for _, i := range allowedFast(p.conn.addr.Addr(), d.t.infoHash, d.t.NumPieces(), fastSetSize) {
		if !d.sched.have.Has(int(i)) {
			continue
		}
		if p.allowed == nil {
			p.allowed = make(map[uint32]int64)
		}
		p.allowed[i] = allowedTimes * d.t.pieceSize(int(i))
		p.send(func(b []byte) []byte { return wire.AppendAllowedFast(b, i) })
	}
}

// takeAllowedFast tells whether a choke does not stop a request of the peer. That ends once the peer
// has enough of its own to trade with, and for each piece once it could have all of it.
func (p *peer) takeAllowedFast(u upload) bool {
	if p.remote.all || p.remote.has.Count() > fastSetBelow {
		p.allowed = nil
	}
	if p.allowed[u.piece] < int64(u.length) {
		return false
	}
	p.allowed[u.piece] -= int64(u.length)
	return true
}
