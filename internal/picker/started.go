package picker

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
	open     bool // is in Picker.open
	parole   bool // failed its hash before: all blocks are to come from sole
	sole     *Supplier
}

// Started is what others may know of a piece of which blocks were asked for.
type Started struct {
	Attempt uint64    // the piece is begun anew under another; 0 if it is not started
	Left    int       // blocks not here
	Free    int       // blocks neither here nor under way
	Parole  bool      // all blocks are to come from one supplier
	Sole    *Supplier // that supplier, once there is one
}

// Started tells of piece i. Blocks of it that were Accepted under another attempt are of no use any more.
func (pk *Picker) Started(i int) Started {
	p := pk.started[int32(i)]
	if p == nil {
		return Started{}
	}
	return Started{p.attempt, p.left, p.free, p.parole, p.sole}
}

// Here is the blocks of the started piece i that are here.
func (pk *Picker) Arrived(i int) bits.Set {
	p := pk.started[int32(i)]
	here := bits.New(len(p.blocks))
	for k := range p.blocks {
		if p.blocks[k].here() {
			here.Add(k)
		}
	}
	return here
}

type block struct {
	owner  [2]*Supplier // who was asked for it and has not answered
	sender int32        // who sent it; noSender while it is not here
}

// What block.sender is beside an index into Picker.senders.
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

// forsake ends s's time as the sole sender of pieces on parole: what it sent of them proves nothing
// beside another's blocks, so they begin anew with somebody else.
func (pk *Picker) forsake(s *Supplier) {
	for _, p := range pk.started {
		if p.sole == s {
			pk.restart(p)
		}
	}
}

// restart begins a piece on parole anew, for another sole sender: it goes back to the heap.
func (pk *Picker) restart(p *startedPiece) {
	if p.left > 0 { // else it is complete, and on its way to be hashed
		p.reset()
		pk.retire(p)
	}
}

func (p *startedPiece) reset() {
	for k := range p.blocks {
		p.blocks[k] = block{sender: noSender}
	}
	p.free, p.left, p.cursor = len(p.blocks), len(p.blocks), 0
}

// retire returns a started piece of which nothing is here or under way to the heap.
func (pk *Picker) retire(p *startedPiece) {
	if p == nil || p.free < len(p.blocks) {
		return
	}
	pk.lapse(p)
	pk.drop(p)
	if i := int(p.piece); pk.need.Has(i) {
		pk.heap.push(i)
		pk.freshen(i, 1)
	}
}

// drop forgets a started piece.
func (pk *Picker) drop(p *startedPiece) {
	pk.close(p)
	delete(pk.started, p.piece)
	p.sole, p.parole = nil, false
	if len(pk.spare) < 64 {
		pk.spare = append(pk.spare, p)
	}
}

// freshen adds delta to the count of fresh pieces of each supplier that has piece i.
func (pk *Picker) freshen(i, delta int) {
	for _, s := range pk.suppliers {
		if !s.all && s.has.Has(i) {
			s.fresh += delta
		}
	}
}

// start takes piece i from the heap, or from among the unwanted, and begins it.
func (pk *Picker) start(i int) *startedPiece {
	if pk.heap.holds(i) {
		pk.heap.remove(i)
		pk.freshen(i, -1)
	}
	var p *startedPiece
	if k := len(pk.spare) - 1; k >= 0 {
		p, pk.spare = pk.spare[k], pk.spare[:k]
	} else {
		p = new(startedPiece)
	}
	n := pk.layout.NumBlocks(i)
	pk.attempts++
	p.blocks = slices.Grow(p.blocks[:0], n)[:n]
	p.piece, p.priority, p.attempt = int32(i), pk.heap.priority[i], pk.attempts
	p.parole = pk.spoiled[p.piece] != nil
	p.reset()
	pk.started[p.piece] = p
	pk.reopen(p)
	return p
}

// reopen puts p among the open pieces if it belongs there and is not.
func (pk *Picker) reopen(p *startedPiece) {
	if p.open || p.free == 0 || p.priority == 0 {
		return
	}
	at, _ := slices.BinarySearchFunc(pk.open, p, func(a, b *startedPiece) int {
		return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(a.attempt, b.attempt))
	})
	pk.open = slices.Insert(pk.open, at, p)
	p.open = true
}

func (pk *Picker) close(p *startedPiece) {
	if p.open {
		pk.open = slices.Delete(pk.open, slices.Index(pk.open, p), slices.Index(pk.open, p)+1)
		p.open = false
	}
}

// Restore starts piece i with the blocks that storage already holds, as a clean stop leaves them.
func (pk *Picker) Restore(i int, blocks *bits.Set) {
	p := pk.start(i)
	for k := range blocks.All() {
		p.blocks[k].sender = fromStorage
		p.free--
		p.left--
	}
	if p.free == 0 {
		pk.close(p)
	}
}

// Abandon begins piece i anew, if it was started and is not on its way to be hashed. What was under way
// of it is returned to be cancelled.
func (pk *Picker) Abandon(i int) (cancel []Request) {
	p := pk.started[int32(i)]
	if p == nil || p.left == 0 {
		return nil
	}
	cancel = pk.disown(p)
	p.reset()
	pk.retire(p)
	return cancel
}
