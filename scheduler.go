package torrent

import (
	"slices"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
)

// A scheduler decides who is asked for which block. Peers pull: a peer with room in its pipeline
// calls next, and what it receives it reports. The scheduler owns the piece heap, the started pieces
// and every outstanding request; it is plain data under its download's mutex.
//
// A piece is in exactly one place: unwanted, in the heap (wanted, not started), started, had, or in
// doubt.
type scheduler struct {
	layout   layout.Layout
	heap     *pieceHeap
	have     bits.Set         // verified
	need     bits.Set         // wanted and not verified
	doubted  map[int]struct{} // verified once, and to be verified anew
	started  map[int32]*startedPiece
	open     []*startedPiece // started and wanted with a free block, by priority, then oldest first
	remotes  []*remote
	seeds    int                  // remotes that have everything
	attempts uint64               // so many times a piece was begun
	spoiled  map[int32]*suspicion // pieces that failed their hash, until they pass
	senders  []any                // origins of those who sent a block, by remote.sender
	spare    []*startedPiece      // for reuse
	steals   int64                // blocks handed out a second time
}

// blockLen is the length of block b in bytes.
func (s *scheduler) blockLen(b blockID) int { return s.layout.BlockLen(int(b.piece), int(b.index)) }

// blockID names a block: the index-th run of 16 KiB in piece.
type blockID struct{ piece, index int32 }

func newScheduler(l layout.Layout, seed uint64) *scheduler {
	return &scheduler{
		layout:  l,
		heap:    newPieceHeap(l.NumPieces(), seed),
		have:    bits.New(l.NumPieces()),
		need:    bits.New(l.NumPieces()),
		doubted: make(map[int]struct{}),
		started: make(map[int32]*startedPiece),
		spoiled: make(map[int32]*suspicion),
	}
}

// Remotes are those that have joined and not left, in that order.
func (s *scheduler) Remotes() []*remote { return s.remotes }

// Verified is the set of pieces that are verified, to be looked at under the mutex and not to be changed.
func (s *scheduler) Verified() *bits.Set { return &s.have }

// Needed is the set of pieces that are wanted and not verified, likewise.
func (s *scheduler) Needed() *bits.Set { return &s.need }

// Availability is how many remotes have piece i, those that have everything left out.
func (s *scheduler) Availability(i int) uint16 { return s.heap.avail[i] }

// NumStarted is how many pieces are started.
func (s *scheduler) NumStarted() int { return len(s.started) }

// Steals is how many blocks were handed out a second time.
func (s *scheduler) Steals() int64 { return s.steals }

// Join adds a remote. It has nothing yet, as far as we know.
func (s *scheduler) Join(r *remote) {
	r.has = bits.New(s.layout.NumPieces())
	s.join(r)
}

// join adds a remote that has what its fields say.
func (s *scheduler) join(r *remote) {
	r.pieces, r.sender, r.refused = s.layout.NumPieces(), noSender, -1
	if r.pipe.depth == 0 {
		r.pipe = newPipeline()
	}
	s.remotes = append(s.remotes, r)
	s.count(r)
}

// count takes note of what r has.
func (s *scheduler) count(r *remote) {
	if r.has.Full() && r.has.Len() > 0 {
		r.all, r.has = true, bits.Set{}
	}
	if r.all {
		s.seeds++
		return
	}
	s.heap.count(&r.has, 1)
	s.recount(r)
}

func (s *scheduler) uncount(r *remote) {
	if r.all {
		s.seeds--
	} else {
		s.heap.count(&r.has, -1)
	}
}

// recount derives r's counters from scratch.
func (s *scheduler) recount(r *remote) {
	if r.all {
		return
	}
	r.want = r.has.CountAnd(&s.need)
	r.fresh = 0
	if r.want > 0 {
		r.fresh = r.want
		for p := range s.started {
			if s.need.Has(int(p)) && r.has.Has(int(p)) {
				r.fresh--
			}
		}
	}
}

// Bitfield exchanges what r has for has, which may come late.
func (s *scheduler) Bitfield(r *remote, has bits.Set) {
	s.uncount(r)
	r.all, r.has = false, has
	s.count(r)
}

// Leave takes r out, and returns how many blocks that frees.
func (s *scheduler) Leave(r *remote) int {
	freed := s.Release(r, func(blockID) bool { return true })
	s.forsake(r)
	s.uncount(r)
	s.remotes = slices.DeleteFunc(s.remotes, func(o *remote) bool { return o == r })
	return len(freed)
}

// Have notes that r now has piece i, and tells whether that is news.
func (s *scheduler) Have(r *remote, i int) bool {
	if r.all || !r.has.Add(i) {
		return false
	}
	s.heap.countOne(i, 1)
	if s.need.Has(i) {
		r.want++
		if s.heap.holds(i) {
			r.fresh++
		}
	}
	return true
}

// DontHave notes that r no longer has piece i (BEP 54), and releases what it was asked for of it. That is to be
// cancelled, or r might send it twice if it soon has the piece again.
func (s *scheduler) DontHave(r *remote, i int) []cancelled {
	s.lose(r, i)
	return cancels(r, s.Release(r, func(id blockID) bool { return int(id.piece) == i }))
}

func (s *scheduler) lose(r *remote, i int) {
	if r.all {
		has := bits.Full(s.layout.NumPieces())
		has.Remove(i)
		s.Bitfield(r, has)
		return
	}
	if !r.has.Remove(i) {
		return
	}
	s.heap.countOne(i, -1)
	if s.need.Has(i) {
		r.want--
		if s.heap.holds(i) {
			r.fresh--
		}
	}
}

// Interesting tells whether r has a piece that is needed: exactly then we are interested.
func (s *scheduler) Interesting(r *remote) bool {
	return r.all && s.need.Count() > 0 || !r.all && r.want > 0
}

// Prioritise sets the priority of piece i; 0 is not wanted. Requests under way for a piece that is
// no longer wanted are returned to be cancelled.
func (s *scheduler) Prioritise(i int, priority uint8) (cancel []cancelled) {
	_, doubted := s.doubted[i]
	if !s.heap.prioritise(i, priority) || doubted || s.have.Has(i) {
		return nil
	}
	p := s.started[int32(i)]
	if wanted := priority > 0; wanted != s.need.Has(i) {
		s.setNeed(i, wanted)
		switch {
		case p != nil:
		case wanted:
			s.heap.push(i)
			s.freshen(i, 1)
		default:
			s.heap.remove(i)
			s.freshen(i, -1)
		}
	}
	if p != nil {
		p.priority = priority
		s.close(p)
		if priority == 0 {
			cancel = s.disown(p)
			s.close(p)
		}
		s.reopen(p)
		s.retire(p)
	}
	return cancel
}

// Passed notes that piece i is whole, hashed and stored. What was still under way of it is returned to be
// cancelled. digests are of its blocks, where it is suspect; the origins of others are returned, too.
func (s *scheduler) Passed(i int, digests []uint64) (cancel []cancelled, liars []any) {
	liars = s.clear(i, digests)
	if p := s.started[int32(i)]; p != nil {
		cancel = s.disown(p)
		s.drop(p)
	}
	if s.heap.holds(i) {
		s.heap.remove(i)
		s.freshen(i, -1)
	}
	s.have.Add(i)
	delete(s.doubted, i)
	s.setNeed(i, false)
	return cancel, liars
}

// Doubt notes that piece i, once verified, may not be what it was. It is neither had nor needed
// until Passed or Lost says which.
func (s *scheduler) Doubt(i int) bool {
	had := s.have.Remove(i)
	if had {
		s.doubted[i] = struct{}{}
	}
	return had
}

// Lost notes that piece i, in doubt, is not there any more.
func (s *scheduler) Lost(i int) {
	delete(s.doubted, i)
	if s.heap.priority[i] > 0 {
		s.setNeed(i, true)
		s.heap.push(i)
		s.freshen(i, 1)
	}
}

// setNeed notes whether piece i is wanted and not verified, also with those that have it.
func (s *scheduler) setNeed(i int, need bool) {
	delta := 1
	if need == s.need.Has(i) {
		return
	} else if need {
		s.need.Add(i)
	} else {
		delta = -1
		s.need.Remove(i)
	}
	for _, r := range s.remotes {
		if !r.all && r.has.Has(i) {
			r.want += delta
		}
	}
}
