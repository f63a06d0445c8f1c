package picker

import (
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
)

// A Supplier is the state of a source of blocks, such as a connected peer. Its owner sets the exported fields and keeps them up
// to date.
type Supplier struct {
	Owner   any  // for the caller; not used by the Picker
	Origin  any  // identity to blame for false blocks, the same in all its connections; comparable
	Host    any  // suppliers with the same Host share their turns at a piece on parole; comparable
	Ready   bool // can be asked for blocks, unless Choking
	Choking bool // answers no requests except for allowed-fast pieces (BEP 6)
	Roomy   bool // requests to it were cancelled, so it can be asked for others; not used by the Picker
	Runs    bool // sends one run of consecutive blocks at a time: NextRun is called, not Next. Set before Join

	// Careful is set where a request costs a share of a limit, also if it is not answered: few are sent to a supplier before it has
	// answered some, and after it was snubbed, or has choked. Set before Join.
	Careful bool

	sender int32    // number in Picker.senders, or noSender while it has sent nothing
	pieces int      // number of pieces of the torrent
	all    bool     // has every piece; the field has is not used
	near   bool     // had every piece and lost some since, so that its pieces are not counted either
	has    bits.Set // the pieces that it has
	want   int      // how many of its pieces are needed; not maintained if all
	fresh  int      // how many of its pieces are in the heap; not maintained if all
	open   int      // how many of its pieces are in Picker.open; not maintained if all
	lost   []int32  // pieces that it lost (DontHave), at most maxLost; it may have some of them again

	queue    []outstanding // oldest first
	backing  []outstanding // of length 0; its memory may be that of queue
	asked    bool          // a block was requested from it at least once
	forgiven forgiven

	allowed   map[int32]struct{} // allowed-fast pieces (BEP 6)
	suggested []int32            // pieces that it prefers to send (BEP 6), latest last
	refused   int32              // a piece of which it has rejected a request, and sent no block since; or -1
	refusedAt time.Time          // when it rejected the first of these requests
	denied    []int32            // pieces that it is assumed to lack until regainAt, because it rejects requests for them
	regainAt  time.Time
	snubbed   bool // has not answered for too long, and has sent nothing since
	left      bool // stands for one that has left: see endTurns

	walksFrom time.Time     // when Next may look for open pieces for it again
	looksFrom time.Time     // when victim may search all outstanding requests for it again
	heard     time.Time     // when the last block arrived, or the first request after a pause was sent
	began     time.Time     // when it began to send what it is sending, if that is known
	robbed    time.Duration // how long it was silent when a request to it was taken over, at most; 0 once it has sent a block
	blockTime deviation     // times between blocks while requests are outstanding
	pace      pace
	pipe      pipeline
}

// outstanding is a request that is not answered yet, and when it was made.
type outstanding struct {
	Block
	at time.Time
}

// Has reports whether the supplier has a piece.
func (s *Supplier) Has(piece int) bool { return s.all || s.has.Has(piece) }

// HasAll reports whether the supplier has every piece.
func (s *Supplier) HasAll() bool { return s.all || s.has.Full() }

// HasLost reports whether the supplier lost pieces (DontHave) that it may not have again.
func (s *Supplier) HasLost() bool { return len(s.lost) > 0 }

// Count returns the number of pieces that the supplier has.
func (s *Supplier) Count() int {
	if s.all {
		return s.pieces
	}
	return s.has.Count()
}

// Snubbed reports whether the supplier did not answer for too long (see Picker.Snub) and has sent nothing since.
func (s *Supplier) Snubbed() bool { return s.snubbed }

// Outstanding returns the number of outstanding requests to the supplier.
func (s *Supplier) Outstanding() int { return len(s.queue) }

// Memory returns the approximate memory of outstanding and released requests, in bytes.
func (s *Supplier) Memory() int {
	const perForgiven, perRequest = 40, 32
	return perForgiven*(len(s.forgiven.latest)+len(s.forgiven.older)) + perRequest*(cap(s.queue)+cap(s.backing))
}

// Forget forgets the released requests, because the supplier will answer none of them.
func (s *Supplier) Forget() { s.forgiven = forgiven{} }

// Unsent records that the latest released request for a block was never sent, so that it has no answer.
func (s *Supplier) Unsent(b Block) { s.forgiven.take(b) }

// IsAsked reports whether a request for a block of a piece is outstanding.
func (s *Supplier) IsAsked(piece int) bool {
	return slices.ContainsFunc(s.queue, func(q outstanding) bool { return int(q.Piece) == piece })
}

// Room returns how many more blocks to request from the supplier now.
func (s *Supplier) Room() int {
	if !s.Ready || s.Choking && len(s.allowed) == 0 {
		return 0
	}
	return s.pipe.room(len(s.queue))
}

// SetLimit sets how many outstanding requests the supplier allows.
func (s *Supplier) SetLimit(n int) { s.pipe.setLimit(n) }

// maxAllowed is how many allowed-fast pieces of a supplier are recorded.
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

// maxSuggested is how many suggestions of a supplier are recorded, the latest ones.
const maxSuggested = 8

// Suggest records that the supplier prefers to send a piece (BEP 6).
func (s *Supplier) Suggest(piece int) {
	s.suggested = slices.DeleteFunc(s.suggested, func(i int32) bool { return int(i) == piece })
	if len(s.suggested) == maxSuggested {
		s.suggested = s.suggested[1:]
	}
	s.suggested = append(s.suggested, int32(piece))
}

// may reports whether the supplier can be asked for blocks of a piece.
func (s *Supplier) may(piece int32) bool {
	return s.Has(int(piece)) && (!s.Choking || s.AllowedFast(int(piece)))
}

// stuck reports whether requests for a piece may never be answered: the supplier is snubbed or choking, or has left.
func (s *Supplier) stuck(piece int32) bool {
	return s.snubbed || s.left || s.Choking && !s.AllowedFast(int(piece))
}

// eta returns the time until the block of the k-th outstanding request is expected, counting from 0. It grows while the supplier
// is silent, so that a supplier that has stopped is noticed before it is snubbed. The silence still counts once its requests were
// taken over: otherwise it would take them back at once, and so on without end.
func (s *Supplier) eta(k int, now time.Time) time.Duration {
	d := max(s.pace.estimate(float64(k+1)*layout.BlockSize, s.pipe.rtt, now), s.robbed)
	if len(s.queue) > 0 || s.Choking || s.left {
		d = max(d, now.Sub(s.heard))
	}
	return d
}

// overdue reports whether the supplier has not answered for too long.
func (s *Supplier) overdue(now time.Time) bool {
	return len(s.queue) > 0 && now.Sub(s.heard) > s.blockTime.patience()
}

// rob records that a request is taken over from the supplier. It is not called for one that is stuck, whose silence may be a choke and
// says nothing of its speed.
func (s *Supplier) rob(now time.Time) { s.robbed = max(s.robbed, now.Sub(s.heard)) }

// Held records that nothing was read from the supplier until now, so that the delay does not count as silence.
func (s *Supplier) Held(now time.Time) { s.heard = now }

// Begins records that the supplier begins to send a block, so that what came before does not count as slowness: a server may take
// seconds for each answer, and send much that is not wanted.
func (s *Supplier) Begins(now time.Time) { s.began = now }

// expect starts to measure the time until the next block, if no request is outstanding.
func (s *Supplier) expect(now time.Time) {
	if len(s.queue) == 0 {
		s.heard = now
		s.pipe.asked(now)
	}
}

// enqueue adds a request to the queue. It reuses the memory of answered requests at the front.
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

// answer removes from the queue the request for a block of n bytes that has arrived, and updates the measurements. It reports
// whether there was such a request.
func (s *Supplier) answer(b Block, n int, now time.Time) bool {
	for k := range s.queue {
		if q := s.queue[k]; q.Block == b {
			s.dequeue(k)
			silence := now.Sub(s.heard)
			s.pace.add(n, min(silence, now.Sub(s.began)), now)
			s.pipe.received(n, q.at, now, s.pace.rate)
			s.blockTime.add(silence)
			return true
		}
	}
	return false
}

// Join adds a supplier that has no pieces yet.
func (pk *Picker) Join(s *Supplier) {
	s.has = bits.New(pk.layout.NumPieces())
	pk.join(s)
}

// join adds a supplier with the pieces in its fields all and has.
func (pk *Picker) join(s *Supplier) {
	s.pieces, s.sender, s.refused = pk.layout.NumPieces(), noSender, -1
	if n := pk.senders.find(s.Origin); n != noSender && !s.Runs {
		s.sender, s.pace.rate = n, pk.senders.all[n].best // it keeps its credit if it connects again
	}
	if s.pipe.depth == 0 {
		s.pipe = newPipeline(s.Careful)
	}
	pk.suppliers = append(pk.suppliers, s)
	pk.count(s)
}

// Leave removes a supplier and releases the requests to it. It returns their number.
func (pk *Picker) Leave(s *Supplier) int {
	n := pk.Release(s, func(Block) bool { return true })
	pk.endTurns(s)
	pk.uncount(s)
	s.sender = noSender // it may be forgotten
	pk.suppliers = slices.DeleteFunc(pk.suppliers, func(o *Supplier) bool { return o == s })
	return n
}
