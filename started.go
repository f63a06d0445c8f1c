package torrent

import (
	"cmp"
	"slices"

	"github.com/shoal-go/torrent/internal/bits"
)

// startedPiece is a piece of which blocks were asked for.
type startedPiece struct {
	piece    int32
	priority uint8
	attempt  uint64
	blocks   []block
	free     int  // blocks neither here nor under way
	left     int  // blocks not here
	cursor   int  // no block before it is free
	open     bool // is in scheduler.open
	parole   bool // failed its hash before: all blocks are to come from sole
	sole     *remote
}

// Started is what others may know of a piece of which blocks were asked for.
type Started struct {
	Attempt uint64  // the piece is begun anew under another; 0 if it is not started
	Left    int     // blocks not here
	Free    int     // blocks neither here nor under way
	Parole  bool    // all blocks are to come from one remote
	Sole    *remote // that remote, once there is one
}

// Started tells of piece i. Blocks of it that were accepted under another attempt are of no use any more.
func (s *scheduler) Started(i int) Started {
	p := s.started[int32(i)]
	if p == nil {
		return Started{}
	}
	return Started{p.attempt, p.left, p.free, p.parole, p.sole}
}

// Here is the blocks of the started piece i that are here.
func (s *scheduler) Here(i int) bits.Set {
	p := s.started[int32(i)]
	here := bits.New(len(p.blocks))
	for k := range p.blocks {
		if p.blocks[k].here() {
			here.Add(k)
		}
	}
	return here
}

type block struct {
	owner  [2]*remote // who was asked for it and has not answered
	sender int32      // who sent it; noSender while it is not here
}

// What block.sender is beside an index into scheduler.senders.
const (
	noSender    = -1 // the block is not here
	fromStorage = -2 // an earlier run left it
)

func (b *block) here() bool { return b.sender != noSender }

func (b *block) free() bool { return b.owner[0] == nil && b.owner[1] == nil && !b.here() }

func (b *block) copies() int {
	n := 0
	for _, o := range b.owner {
		if o != nil {
			n++
		}
	}
	return n
}

// forsake ends r's time as the sole sender of pieces on parole: what it sent of them proves nothing
// beside another's blocks, so they begin anew with somebody else.
func (s *scheduler) forsake(r *remote) {
	for _, p := range s.started {
		if p.sole == r {
			s.restart(p)
		}
	}
}

// restart begins a piece on parole anew, for another sole sender: it goes back to the heap.
func (s *scheduler) restart(p *startedPiece) {
	if p.left > 0 { // else it is complete, and on its way to be hashed
		p.reset()
		s.retire(p)
	}
}

func (p *startedPiece) reset() {
	for k := range p.blocks {
		p.blocks[k] = block{sender: noSender}
	}
	p.free, p.left, p.cursor = len(p.blocks), len(p.blocks), 0
}

// retire returns a started piece of which nothing is here or under way to the heap.
func (s *scheduler) retire(p *startedPiece) {
	if p == nil || p.free < len(p.blocks) {
		return
	}
	s.lapse(p)
	s.drop(p)
	if i := int(p.piece); s.need.Has(i) {
		s.heap.push(i)
		s.freshen(i, 1)
	}
}

// drop forgets a started piece.
func (s *scheduler) drop(p *startedPiece) {
	s.close(p)
	delete(s.started, p.piece)
	p.sole, p.parole = nil, false
	if len(s.spare) < 64 {
		s.spare = append(s.spare, p)
	}
}

// freshen adds delta to the count of fresh pieces of each remote that has piece i.
func (s *scheduler) freshen(i, delta int) {
	for _, r := range s.remotes {
		if !r.all && r.has.Has(i) {
			r.fresh += delta
		}
	}
}

// start takes piece i from the heap, or from among the unwanted, and begins it.
func (s *scheduler) start(i int) *startedPiece {
	if s.heap.holds(i) {
		s.heap.remove(i)
		s.freshen(i, -1)
	}
	var p *startedPiece
	if k := len(s.spare) - 1; k >= 0 {
		p, s.spare = s.spare[k], s.spare[:k]
	} else {
		p = new(startedPiece)
	}
	n := s.layout.NumBlocks(i)
	s.attempts++
	p.blocks = slices.Grow(p.blocks[:0], n)[:n]
	p.piece, p.priority, p.attempt = int32(i), s.heap.priority[i], s.attempts
	p.parole = s.spoiled[p.piece] != nil
	p.reset()
	s.started[p.piece] = p
	s.reopen(p)
	return p
}

// reopen puts p among the open pieces if it belongs there and is not.
func (s *scheduler) reopen(p *startedPiece) {
	if p.open || p.free == 0 || p.priority == 0 {
		return
	}
	at, _ := slices.BinarySearchFunc(s.open, p, func(a, b *startedPiece) int {
		return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(a.attempt, b.attempt))
	})
	s.open = slices.Insert(s.open, at, p)
	p.open = true
}

func (s *scheduler) close(p *startedPiece) {
	if p.open {
		s.open = slices.Delete(s.open, slices.Index(s.open, p), slices.Index(s.open, p)+1)
		p.open = false
	}
}

// Restore starts piece i with the blocks that storage already holds, as a clean stop leaves them.
func (s *scheduler) Restore(i int, blocks *bits.Set) {
	p := s.start(i)
	for k := range blocks.All() {
		p.blocks[k].sender = fromStorage
		p.free--
		p.left--
	}
	if p.free == 0 {
		s.close(p)
	}
}

// Abandon begins piece i anew, if it was started and is not on its way to be hashed. What was under way
// of it is returned to be cancelled.
func (s *scheduler) Abandon(i int) (cancel []cancelled) {
	p := s.started[int32(i)]
	if p == nil || p.left == 0 {
		return nil
	}
	cancel = s.disown(p)
	p.reset()
	s.retire(p)
	return cancel
}
