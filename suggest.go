package torrent

import (
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/choker"
	"github.com/shoal-go/torrent/internal/wire"
)

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
