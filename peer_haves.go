package torrent

import (
	"errors"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/wire"
)

var errBothSeeds = errors.New("both sides have everything")

// isSeed reports whether the peer has everything.
func (p *peer) isSeed() bool { return p.supply.HasAll() }

// has records that the peer has a piece.
func (p *peer) has(i int, now time.Time) {
	d := p.d
	if d.picker.Have(&p.supply, i) {
		d.gained(p, now)
		d.uploading.spread.Seen(p.number, i)
		d.tookSuggestion(p, i, now)
	}
}

// hasPieces records a bitfield, have-all or have-none. Only the first replaces what is known. Others add to it: aria2
// sends a bitfield in place of many haves if that is shorter.
func (p *peer) hasPieces(has bits.Set, now time.Time) {
	if !p.saidPieces {
		p.saidPieces = true
		p.d.picker.Bitfield(&p.supply, has)
		p.d.gained(p, now)
		return
	}
	news := false
	for i := range has.All() {
		news = p.d.picker.Have(&p.supply, i) || news
	}
	if news {
		p.d.gained(p, now)
	}
}

// gained acts on a peer having more pieces than was known.
func (d *Download) gained(p *peer, now time.Time) {
	d.updateInterest(p)
	d.refill(&p.supply, now)
	if d.sharing() && d.sated() && p.isSeed() {
		p.stopLocked(errBothSeeds)
	}
}

// updateInterest tells a peer whether we are interested, if that has changed.
func (d *Download) updateInterest(p *peer) {
	if is := d.picker.Interesting(&p.supply); is != p.amInterested {
		p.amInterested = is
		p.supply.Ready = is && p.closing == nil
		if is {
			p.sendSimple(wire.Interested)
		} else {
			p.sendSimple(wire.NotInterested)
		}
	}
}

// tellHave tells the peer that we have a piece. If it has the piece, too, that can wait for the next message.
func (p *peer) tellHave(i int) {
	encode := func(b []byte) []byte { return wire.AppendHave(b, uint32(i)) }
	if !p.supply.Has(i) {
		p.send(encode)
	} else if !p.out.AddLazily(encode) {
		p.stopLocked(errNotReading)
	}
}

// tellDontHave tells the peer that we no longer have a piece, if it understands that (BEP 54).
func (p *peer) tellDontHave(i int) {
	if number := p.ext.number[extDontHave]; number != 0 {
		p.send(func(b []byte) []byte { return wire.AppendDontHave(b, number, uint32(i)) })
	}
}
