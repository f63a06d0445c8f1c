package choker

import (
	"time"

	"github.com/shoal-go/torrent/internal/bits"
)

// suggestPause is how long to wait after nothing worth suggesting was found.
const suggestPause = 30 * time.Second

// maxLooks is how many pieces Pick examines at most. A peer can cause a call whenever it is choked and unchoked.
const maxLooks = 1 << 14

// A Suggester chooses which pieces a seed suggests to each peer: pieces that no other peer has, or only a hoarder, and
// each to one peer (BEP 6). Without suggestions peers draw lots among equally rare pieces, and what two of them draw is
// sent twice while the swarm waits for the rest. The zero value is ready for use.
type Suggester struct {
	given bits.Set  // pieces that were requested from us or suggested
	next  int       // where to go on looking
	vain  int       // pieces examined since one was found
	idle  time.Time // until then there is nothing to find
}

// Give records that a peer requests piece i.
func (s *Suggester) Give(i, pieces int) {
	if s.given.Len() == 0 {
		s.given = bits.New(pieces)
	}
	s.given.Add(i)
}

// Pick returns a piece to suggest, or -1 if it found none so far. avail is how many peers have a piece, and sp knows which of
// them keep it.
func (s *Suggester) Pick(pieces int, avail func(int) uint16, sp *Spread, pieceLength int64, now time.Time) int {
	if now.Before(s.idle) {
		return -1
	}
	for range min(maxLooks, pieces-s.vain) {
		i := s.next
		s.next = (i + 1) % pieces
		s.vain++
		if n := avail(i); n == 0 && !s.given.Has(i) || n == 1 && sp.reclaim(i, pieceLength) {
			s.Give(i, pieces)
			s.vain = 0
			return i
		}
	}
	if s.vain < pieces {
		return -1
	}
	s.vain = 0
	s.given = bits.Set{} // a piece that a peer was given and did not get is worth suggesting again
	s.idle = now.Add(suggestPause)
	return -1
}

// GiveUp records that the peer to which pieces were suggested will not get them.
func (s *Suggester) GiveUp(pieces []int) {
	for _, i := range pieces {
		if s.given.Has(i) {
			s.given.Remove(i)
			s.idle = time.Time{}
		}
	}
}
