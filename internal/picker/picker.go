// Package picker decides which block is asked of whom: rarest pieces first, what is begun before what is new, what
// a slow supplier owes from a faster one, and a piece that failed its hash from one supplier at a time.
//
// It is plain data: a Picker and the Suppliers that joined it belong to one download and are touched under its mutex
// alone. The time is an argument, and what is to be asked or cancelled is returned, for the caller to see to.
package picker

import (
	"slices"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
)

// A Picker decides who is asked for which block. Peers pull: a peer with room in its pipeline
// calls next, and what it receives it reports. The Picker owns the piece heap, the started pieces
// and every outstanding request; it is plain data under its download's mutex.
//
// A piece is in exactly one place: unwanted, in the heap (wanted, not started), started, had, or in
// doubt.
type Picker struct {
	layout    layout.Layout
	heap      *pieceHeap
	have      bits.Set         // verified
	need      bits.Set         // wanted and not verified
	doubted   map[int]struct{} // verified once, and to be verified anew
	started   map[int32]*startedPiece
	open      []*startedPiece // started and wanted with a free block, by priority, then oldest first
	suppliers []*Supplier
	seeds     int                  // suppliers that have everything
	attempts  uint64               // so many times a piece was begun
	spoiled   map[int32]*suspicion // pieces that failed their hash, until they pass
	senders   []any                // origins of those who sent a block, by supplier.sender
	spare     []*startedPiece      // for reuse
	steals    int64                // blocks handed out a second time
}

// blockLen is the length of block b in bytes.
func (pk *Picker) blockLen(b Block) int { return pk.layout.BlockLen(int(b.Piece), int(b.Index)) }

// Block names a block: the index-th run of 16 KiB in piece.
type Block struct{ Piece, Index int32 }

// A Request is a block that a supplier is asked for, or not asked for any more.
type Request struct {
	Supplier *Supplier
	Block    Block
}

func New(l layout.Layout, seed uint64) *Picker {
	return &Picker{
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
func (pk *Picker) Suppliers() []*Supplier { return pk.suppliers }

// Verified is the set of pieces that are verified, to be looked at under the mutex and not to be changed.
func (pk *Picker) Verified() *bits.Set { return &pk.have }

// Needed is the set of pieces that are wanted and not verified, likewise.
func (pk *Picker) Needed() *bits.Set { return &pk.need }

// Availability is how many suppliers have piece i, those that have everything left out.
func (pk *Picker) Availability(i int) uint16 { return pk.heap.avail[i] }

// NumStarted is how many pieces are started.
func (pk *Picker) NumStarted() int { return len(pk.started) }

// Steals is how many blocks were handed out a second time.
func (pk *Picker) Steals() int64 { return pk.steals }

// Join adds a supplier. It has nothing yet, as far as we know.
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

// count takes note of what s has.
func (pk *Picker) count(s *Supplier) {
	if s.has.Full() && s.has.Len() > 0 {
		s.all, s.has = true, bits.Set{}
	}
	if s.all {
		pk.seeds++
		return
	}
	pk.heap.count(&s.has, 1)
	pk.recount(s)
}

func (pk *Picker) uncount(s *Supplier) {
	if s.all {
		pk.seeds--
	} else {
		pk.heap.count(&s.has, -1)
	}
}

// recount derives s's counters from scratch.
func (pk *Picker) recount(s *Supplier) {
	if s.all {
		return
	}
	s.want = s.has.CountAnd(&pk.need)
	s.fresh = 0
	if s.want > 0 {
		s.fresh = s.want
		for p := range pk.started {
			if pk.need.Has(int(p)) && s.has.Has(int(p)) {
				s.fresh--
			}
		}
	}
}

// Bitfield exchanges what s has for has, which may come late.
func (pk *Picker) Bitfield(s *Supplier, has bits.Set) {
	pk.uncount(s)
	s.all, s.has = false, has
	pk.count(s)
}

// Leave takes s out, and returns how many blocks that frees.
func (pk *Picker) Leave(s *Supplier) int {
	freed := pk.Release(s, func(Block) bool { return true })
	pk.forsake(s)
	pk.uncount(s)
	pk.suppliers = slices.DeleteFunc(pk.suppliers, func(o *Supplier) bool { return o == s })
	return freed
}

// Have notes that s now has piece i, and tells whether that is news.
func (pk *Picker) Have(s *Supplier, i int) bool {
	if s.all || !s.has.Add(i) {
		return false
	}
	pk.heap.countOne(i, 1)
	if pk.need.Has(i) {
		s.want++
		if pk.heap.holds(i) {
			s.fresh++
		}
	}
	return true
}

// DontHave notes that s no longer has piece i (BEP 54), and releases what it was asked for of it. That is to be
// cancelled, or s might send it twice if it soon has the piece again.
func (pk *Picker) DontHave(s *Supplier, i int) []Request {
	pk.lose(s, i)
	return pk.takeBack(s, func(id Block) bool { return int(id.Piece) == i })
}

func (pk *Picker) lose(s *Supplier, i int) {
	if s.all {
		has := bits.Full(pk.layout.NumPieces())
		has.Remove(i)
		pk.Bitfield(s, has)
		return
	}
	if !s.has.Remove(i) {
		return
	}
	pk.heap.countOne(i, -1)
	if pk.need.Has(i) {
		s.want--
		if pk.heap.holds(i) {
			s.fresh--
		}
	}
}

// Interesting tells whether s has a piece that is needed: exactly then we are interested.
func (pk *Picker) Interesting(s *Supplier) bool {
	return s.all && pk.need.Count() > 0 || !s.all && s.want > 0
}

// Prioritise sets the priority of piece i; 0 is not wanted. Requests under way for a piece that is
// no longer wanted are returned to be cancelled.
func (pk *Picker) Prioritise(i int, priority uint8) (cancel []Request) {
	_, doubted := pk.doubted[i]
	if !pk.heap.prioritise(i, priority) || doubted || pk.have.Has(i) {
		return nil
	}
	p := pk.started[int32(i)]
	if wanted := priority > 0; wanted != pk.need.Has(i) {
		pk.setNeed(i, wanted)
		switch {
		case p != nil:
		case wanted:
			pk.heap.push(i)
			pk.freshen(i, 1)
		default:
			pk.heap.remove(i)
			pk.freshen(i, -1)
		}
	}
	if p != nil {
		p.priority = priority
		pk.close(p)
		if priority == 0 {
			cancel = pk.disown(p)
			pk.close(p)
		}
		pk.reopen(p)
		pk.retire(p)
	}
	return cancel
}

// Passed notes that piece i is whole, hashed and stored. What was still under way of it is returned to be
// cancelled. digests are of its blocks, where it is suspect; the origins of others are returned, too.
func (pk *Picker) Passed(i int, digests []uint64) (cancel []Request, liars []any) {
	liars = pk.clear(i, digests)
	if p := pk.started[int32(i)]; p != nil {
		cancel = pk.disown(p)
		pk.drop(p)
	}
	if pk.heap.holds(i) {
		pk.heap.remove(i)
		pk.freshen(i, -1)
	}
	pk.have.Add(i)
	delete(pk.doubted, i)
	pk.setNeed(i, false)
	return cancel, liars
}

// Doubt notes that piece i, once verified, may not be what it was. It is neither had nor needed
// until Passed or Lost says which.
func (pk *Picker) Doubt(i int) bool {
	had := pk.have.Remove(i)
	if had {
		pk.doubted[i] = struct{}{}
	}
	return had
}

// Lost notes that piece i, in doubt, is not there any more.
func (pk *Picker) Lost(i int) {
	delete(pk.doubted, i)
	if pk.heap.priority[i] > 0 {
		pk.setNeed(i, true)
		pk.heap.push(i)
		pk.freshen(i, 1)
	}
}

// setNeed notes whether piece i is wanted and not verified, also with those that have it.
func (pk *Picker) setNeed(i int, need bool) {
	delta := 1
	if need == pk.need.Has(i) {
		return
	} else if need {
		pk.need.Add(i)
	} else {
		delta = -1
		pk.need.Remove(i)
	}
	for _, s := range pk.suppliers {
		if !s.all && s.has.Has(i) {
			s.want += delta
		}
	}
}
