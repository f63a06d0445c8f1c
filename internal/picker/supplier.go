package picker

import (
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
)

// A Supplier is what the Picker knows of one supplier of blocks, such as a connected peer. The first group of
// fields is the supplier's to write; the Picker keeps the others up to date.
type Supplier struct {
	Owner   any  // the supplier; the Picker does not look at it
	Origin  any  // who is to blame for what it sends, in this connection and others; comparable
	Host    any  // what suppliers share that take turns at a piece on parole as one; comparable
	Ready   bool // it can be asked for blocks, unless it chokes us
	Choking bool // it chokes us
	Roomy   bool // a request was cancelled: it is to be asked for another block in its place

	sender   int32 // index into Picker.senders; noSender until it has sent a block
	all      bool  // it has every piece; has is not used then
	has      bits.Set
	pieces   int           // how many there are
	want     int           // pieces it has that are needed, where it has not all
	fresh    int           // pieces it has that are in the heap, where it has not all
	queue    []outstanding // outstanding requests, oldest first
	asked    bool          // it was ever asked for anything
	backing  []outstanding // what queue is a part of, empty
	forgiven forgiven      // asked for once, then released: no offence if they come
	refused  int32         // the piece of which it last rejected a block, or -1

	allowed   map[int32]struct{} // allowed-fast pieces (BEP 6), which a choke does not stop
	suggested []int32            // pieces it would rather send than others (BEP 6), the latest last
	snubbed   bool               // it let requests time out and has sent nothing since

	heard     time.Time // when the last block came, or when it was first asked after silence
	blockTime deviation // between blocks while some are outstanding
	pace
	pipe pipeline
}

// ask is an outstanding request.
type outstanding struct {
	Block
	at time.Time
}

// Has tells whether the supplier has a piece.
func (s *Supplier) Has(piece int) bool { return s.all || s.has.Has(piece) }

// Allows tells whether a choke does not stop requests for piece (BEP 6).
func (s *Supplier) AllowedFast(piece int) bool {
	_, ok := s.allowed[int32(piece)]
	return ok
}

// may tells whether the supplier can be asked for blocks of piece.
func (s *Supplier) may(piece int32) bool {
	return s.Has(int(piece)) && (!s.Choking || s.AllowedFast(int(piece)))
}

// stuck tells that nothing may come of what the supplier was asked for of piece.
func (s *Supplier) stuck(piece int32) bool {
	return s.snubbed || s.Choking && !s.AllowedFast(int(piece))
}

// HasAll tells whether the supplier has every piece.
func (s *Supplier) HasAll() bool { return s.all || s.has.Full() }

// Count is how many pieces the supplier has.
func (s *Supplier) Count() int {
	if s.all {
		return s.pieces
	}
	return s.has.Count()
}

// Snubbed tells whether the supplier let requests time out and has sent nothing since.
func (s *Supplier) Snubbed() bool { return s.snubbed }

// Outstanding is how many blocks the supplier is asked for.
func (s *Supplier) Outstanding() int { return len(s.queue) }

// SetLimit takes note of how many requests the supplier says it takes at once.
func (s *Supplier) SetLimit(reqq int) { s.pipe.setLimit(reqq) }

// Room is how many more blocks the supplier is to be asked for now.
func (s *Supplier) Room() int {
	if !s.Ready || s.Choking && len(s.allowed) == 0 {
		return 0
	}
	return s.pipe.room(len(s.queue))
}

// maxAllowed bounds how many pieces are remembered that a choke does not stop.
const maxAllowed = 64

// Allow takes note that a choke does not stop requests for piece (BEP 6).
func (s *Supplier) AllowFast(piece int) {
	if len(s.allowed) < maxAllowed {
		if s.allowed == nil {
			s.allowed = make(map[int32]struct{})
		}
		s.allowed[int32(piece)] = struct{}{}
	}
}

// maxSuggested is how many of the latest suggestions of a peer are remembered.
const maxSuggested = 8

// Suggest takes note that the peer would rather send piece than another (BEP 6).
func (s *Supplier) Suggest(piece int) {
	if len(s.suggested) == maxSuggested {
		s.suggested = s.suggested[1:]
	}
	s.suggested = append(s.suggested, int32(piece))
}

// eta is when the k-th outstanding block (from 0) may be expected, from now on. It grows while
// the peer is silent, so that one that stopped in the middle is noticed before it is snubbed.
func (s *Supplier) eta(k int, now time.Time) time.Duration {
	d := s.pace.takes(float64(k+1)*layout.BlockSize, s.pipe.rtt, now)
	if len(s.queue) > 0 {
		d = max(d, now.Sub(s.heard))
	}
	return d
}

// overdue tells whether the peer has let requests wait for too long.
func (s *Supplier) overdue(now time.Time) bool {
	return len(s.queue) > 0 && now.Sub(s.heard) > s.blockTime.patience()
}

// answered takes a request out of the queue whose block of n bytes has come, and tells whether there was one.
func (s *Supplier) answered(id Block, n int, now time.Time) bool {
	for k := range s.queue {
		if a := s.queue[k]; a.Block == id {
			s.dequeue(k)
			silence := now.Sub(s.heard)
			s.pace.add(n, silence, now)
			s.pipe.got(n, a.at, now, s.pace.rate)
			s.blockTime.add(silence)
			return true
		}
	}
	return false
}

// IsAsked tells whether a block of piece is outstanding.
func (s *Supplier) IsAsked(piece int) bool {
	return slices.ContainsFunc(s.queue, func(a outstanding) bool { return int(a.Piece) == piece })
}

// enqueue adds a request to the queue. The room that answered ones leave at its start is used again.
func (s *Supplier) enqueue(a outstanding) {
	if n := len(s.queue); n == cap(s.queue) {
		if 2*n > cap(s.backing) {
			s.backing = make([]outstanding, 0, max(4*n, startDepth))
		}
		s.queue = append(s.backing, s.queue...)
	}
	s.queue, s.asked = append(s.queue, a), true
}

// expect begins to wait for the supplier, if nothing was outstanding: the time before that is no measure of it.
func (s *Supplier) expect(now time.Time) {
	if len(s.queue) == 0 {
		s.heard = now
		s.pipe.asked(now)
	}
}

// dequeue takes the k-th request out of the queue.
func (s *Supplier) dequeue(k int) {
	if k == 0 {
		s.queue = s.queue[1:]
		return
	}
	s.queue = slices.Delete(s.queue, k, k+1)
}
