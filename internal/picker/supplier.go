package picker

import (
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
)

// A Supplier is what a Picker knows of one that blocks come from, such as a connected peer. Its owner sets the
// exported fields and keeps them up to date.
type Supplier struct {
	Owner   any  // what the supplier is to the caller; the Picker does not look at it
	Origin  any  // what is blamed for false blocks, in this connection and in others; comparable
	Host    any  // suppliers with the same Host take turns at a piece on parole as one; comparable
	Ready   bool // it can be asked for blocks, unless it is Choking
	Choking bool // it does not answer requests, but for allowed-fast pieces (BEP 6)
	Roomy   bool // requests to it were cancelled, so it may be asked for others; the Picker does not look at it
	Runs    bool // it sends runs of consecutive blocks, one run at a time: it calls NextRun. Set before Join

	sender int32    // index into Picker.senders, or noSender while it has sent nothing
	pieces int      // how many pieces there are
	all    bool     // it has every piece, and has is not used
	has    bits.Set // what it has
	want   int      // pieces it has that are needed; not kept while all
	fresh  int      // pieces it has that are in the heap; not kept while all
	open   int      // pieces it has that are in Picker.open; not kept while all
	lost   []int32  // pieces that it said it no longer has, at most maxLost; it may have some of them again

	queue    []outstanding // oldest first
	backing  []outstanding // an empty slice, whose room queue may lie in
	asked    bool          // it was asked for a block at least once
	forgiven forgiven

	allowed   map[int32]struct{} // allowed-fast pieces (BEP 6)
	suggested []int32            // pieces that it prefers to send (BEP 6), the latest last
	refused   int32              // the piece of which it last rejected a block, or -1
	snubbed   bool               // it let requests wait for too long, and has sent nothing since

	looksFrom time.Time // when it may look again through all that others are asked for
	heard     time.Time // when the last block came, or the first request after a pause went out
	blockTime deviation // between blocks while some are outstanding
	pace      pace
	pipe      pipeline
}

// outstanding is a request that was not answered yet.
type outstanding struct {
	Block
	at time.Time
}

// Has reports whether the supplier has a piece.
func (s *Supplier) Has(piece int) bool { return s.all || s.has.Has(piece) }

// HasAll reports whether the supplier has every piece.
func (s *Supplier) HasAll() bool { return s.all || s.has.Full() }

// Count is how many pieces the supplier has.
func (s *Supplier) Count() int {
	if s.all {
		return s.pieces
	}
	return s.has.Count()
}

// Snubbed reports whether the supplier let requests wait for too long, and has sent nothing since.
func (s *Supplier) Snubbed() bool { return s.snubbed }

// Outstanding is how many requests the supplier has not answered.
func (s *Supplier) Outstanding() int { return len(s.queue) }

// Memory is about how many bytes are kept of requests that were made and that were taken back.
func (s *Supplier) Memory() int {
	const perForgiven, perRequest = 40, 32
	return perForgiven*(len(s.forgiven.latest)+len(s.forgiven.older)) + perRequest*(cap(s.queue)+cap(s.backing))
}

// IsAsked reports whether a request for a block of a piece is outstanding.
func (s *Supplier) IsAsked(piece int) bool {
	return slices.ContainsFunc(s.queue, func(q outstanding) bool { return int(q.Piece) == piece })
}

// Room is how many more blocks the supplier should be asked for now.
func (s *Supplier) Room() int {
	if !s.Ready || s.Choking && len(s.allowed) == 0 {
		return 0
	}
	return s.pipe.room(len(s.queue))
}

// SetLimit sets how many requests the supplier takes at once.
func (s *Supplier) SetLimit(n int) { s.pipe.setLimit(n) }

// maxAllowed is how many allowed-fast pieces of a supplier are remembered.
const maxAllowed = 64

// AllowFast records that a choke does not stop requests for a piece (BEP 6).
func (s *Supplier) AllowFast(piece int) {
	if len(s.allowed) < maxAllowed {
		if s.allowed == nil {
			s.allowed = make(map[int32]struct{})
		}
		s.allowed[int32(piece)] = struct{}{}
	}
}

// AllowedFast reports whether a choke does not stop requests for a piece (BEP 6).
func (s *Supplier) AllowedFast(piece int) bool {
	_, ok := s.allowed[int32(piece)]
	return ok
}

// maxSuggested is how many suggestions of a supplier are remembered, the latest ones.
const maxSuggested = 8

// Suggest records that the supplier prefers to send a piece (BEP 6).
func (s *Supplier) Suggest(piece int) {
	if len(s.suggested) == maxSuggested {
		s.suggested = s.suggested[1:]
	}
	s.suggested = append(s.suggested, int32(piece))
}

// may reports whether the supplier can be asked for blocks of a piece.
func (s *Supplier) may(piece int32) bool {
	return s.Has(int(piece)) && (!s.Choking || s.AllowedFast(int(piece)))
}

// stuck reports whether requests for a piece may never be answered.
func (s *Supplier) stuck(piece int32) bool {
	return s.snubbed || s.Choking && !s.AllowedFast(int(piece))
}

// eta is the time until the k-th outstanding block, from 0, is expected. It grows while the supplier is silent, so
// that one that stopped is noticed before it is snubbed.
func (s *Supplier) eta(k int, now time.Time) time.Duration {
	d := s.pace.estimate(float64(k+1)*layout.BlockSize, s.pipe.rtt, now)
	if len(s.queue) > 0 {
		d = max(d, now.Sub(s.heard))
	}
	return d
}

// overdue reports whether the supplier has let requests wait for too long.
func (s *Supplier) overdue(now time.Time) bool {
	return len(s.queue) > 0 && now.Sub(s.heard) > s.blockTime.patience()
}

// Held records that what the supplier sends was not read until now, so that the wait is not taken for its silence.
func (s *Supplier) Held(now time.Time) { s.heard = now }

// expect starts to measure the time until the next block, if none was waited for.
func (s *Supplier) expect(now time.Time) {
	if len(s.queue) == 0 {
		s.heard = now
		s.pipe.asked(now)
	}
}

// enqueue adds a request to the queue. It reuses the room that answered requests leave at the front.
func (s *Supplier) enqueue(q outstanding) {
	if n := len(s.queue); n == cap(s.queue) {
		if 2*n > cap(s.backing) {
			s.backing = make([]outstanding, 0, max(4*n, startDepth))
		}
		s.queue = append(s.backing, s.queue...)
	}
	s.queue, s.asked = append(s.queue, q), true
}

// dequeue removes the k-th request from the queue.
func (s *Supplier) dequeue(k int) {
	if k == 0 {
		s.queue = s.queue[1:]
		return
	}
	s.queue = slices.Delete(s.queue, k, k+1)
}

// answer removes the request for a block of n bytes that has come from the queue, and measures how long it took.
// It reports whether the block was outstanding.
func (s *Supplier) answer(b Block, n int, now time.Time) bool {
	for k := range s.queue {
		if q := s.queue[k]; q.Block == b {
			s.dequeue(k)
			silence := now.Sub(s.heard)
			s.pace.add(n, silence, now)
			s.pipe.received(n, q.at, now, s.pace.rate)
			s.blockTime.add(silence)
			return true
		}
	}
	return false
}

// Join adds a supplier that has nothing yet.
func (pk *Picker) Join(s *Supplier) {
	s.has = bits.New(pk.layout.NumPieces())
	pk.join(s)
}

// join adds a supplier that has what its fields say.
func (pk *Picker) join(s *Supplier) {
	s.pieces, s.sender, s.refused = pk.layout.NumPieces(), noSender, -1
	if s.pipe.depth == 0 {
		s.pipe = newPipeline()
	}
	pk.suppliers = append(pk.suppliers, s)
	pk.count(s)
}

// Leave removes a supplier. It returns how many requests were outstanding to it, which others may now be asked for.
func (pk *Picker) Leave(s *Supplier) int {
	n := pk.Release(s, func(Block) bool { return true })
	pk.endTurns(s)
	pk.uncount(s)
	pk.suppliers = slices.DeleteFunc(pk.suppliers, func(o *Supplier) bool { return o == s })
	return n
}
