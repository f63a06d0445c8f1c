package picker

import (
	"cmp"
	"slices"

	"github.com/shoal-go/torrent/internal/bits"
)

// Started is the state of a started piece. The zero value is for a piece that is not started.
type Started struct {
	Attempt uint64    // a new number each time that the piece is started; 0 if it is not
	Left    int       // blocks that have not arrived
	Free    int       // blocks that have not arrived and are not requested
	Parole  bool      // the piece failed its hash before, so all blocks but the kept ones must come from one supplier
	Kept    int       // blocks kept from a failed attempt
	Sole    *Supplier // the one supplier of a piece on parole; nil if not chosen yet
}

// Started returns the state of piece i. Blocks that were accepted in another attempt are of no use.
func (pk *Picker) Started(i int) Started {
	p := pk.started[int32(i)]
	if p == nil {
		return Started{}
	}
	return Started{p.attempt, p.left, p.free, p.parole, p.kept, p.sole}
}

// Arrived returns the set of blocks of piece i that have arrived. The piece must be started.
func (pk *Picker) Arrived(i int) bits.Set {
	p := pk.started[int32(i)]
	arrived := bits.New(p.blocks.len())
	for k, b := range p.blocks.known {
		if b.here() {
			arrived.Add(k)
		}
	}
	return arrived
}

// startedPiece is the state of a started piece.
type startedPiece struct {
	piece    int32
	priority uint8
	attempt  uint64
	blocks   blockTable
	free     int       // blocks that have not arrived and are not requested
	left     int       // blocks that have not arrived
	cursor   int       // no block before this index is free
	open     bool      // the piece is in Picker.open
	kept     int       // blocks kept from a failed attempt because their senders were not accused
	parole   bool      // the piece failed its hash before: all blocks but the kept ones must come from sole
	sole     *Supplier // nil if the piece is not on parole, or no block of it was requested yet
	paused   int       // how many blocks sole had sent when it last choked or left
	waits    bool      // the piece waits for sole while that chokes or is away: see pause
}

type block struct {
	owner  [2]*Supplier // suppliers with an outstanding request for the block
	sender int32        // number in Picker.senders, or one of the values below
	kept   bool         // the block is counted in startedPiece.kept
}

const (
	noSender    = -1 // the block has not arrived
	fromStorage = -2 // the block was in storage from an earlier run
)

func (b *block) here() bool { return b.sender != noSender }

func (b *block) free() bool { return b.owner[0] == nil && b.owner[1] == nil && !b.here() }

// copies returns the number of outstanding requests for the block.
func (b *block) copies() int {
	n := 0
	for _, o := range b.owner {
		if o != nil {
			n++
		}
	}
	return n
}

// addOwner adds s to the owners of b, of which there must be at most one.
func (b *block) addOwner(s *Supplier) {
	k := 0
	if b.owner[0] != nil {
		k = 1
	}
	b.owner[k] = s
}

func (b *block) removeOwner(s *Supplier) {
	for k, o := range b.owner {
		if o == s {
			b.owner[k] = nil
		}
	}
}

// start starts piece i, which may be in the heap or unwanted.
func (pk *Picker) start(i int) *startedPiece {
	if pk.heap.holds(i) {
		pk.unshelve(i)
	}
	var p *startedPiece
	if k := len(pk.spare) - 1; k >= 0 {
		p, pk.spare = pk.spare[k], pk.spare[:k]
	} else {
		p = new(startedPiece)
	}
	pk.attempts++
	p.piece, p.priority, p.attempt = int32(i), pk.heap.priority[i], pk.attempts
	p.parole = pk.spoiled[p.piece] != nil
	pk.reset(p)
	pk.started[p.piece] = p
	pk.reopen(p)
	return p
}

// reset makes all blocks of p free.
func (pk *Picker) reset(p *startedPiece) {
	n := pk.layout.NumBlocks(int(p.piece))
	p.blocks.reset(n, &pk.runs)
	p.free, p.left, p.kept, p.cursor = n, n, 0, 0
}

// block returns block k of p for modification.
func (pk *Picker) block(p *startedPiece, k int32) *block { return p.blocks.ref(int(k), &pk.runs) }

// isFree reports whether block k has not arrived and is not requested.
func (p *startedPiece) isFree(k int) bool {
	b := p.blocks.at(k)
	return b.free()
}

// drop drops block k, which is b and has arrived.
func (p *startedPiece) drop(k int, b *block) {
	if b.kept {
		p.kept--
	}
	b.sender, b.kept = noSender, false
	p.left++
	if b.free() {
		p.free++
		p.cursor = min(p.cursor, k)
	}
}

// keep marks the blocks of p that have arrived as kept, so that they stay when another supplier sends the rest, and returns how many it
// marked.
func (p *startedPiece) keep() (n int) {
	for _, b := range p.blocks.known {
		if b.here() && !b.kept {
			b.kept = true
			n++
		}
	}
	p.kept += n
	return n
}

// isAsked reports whether a block of p is requested. If p is on parole, that is from its sole supplier, whose queue may be long.
func (p *startedPiece) isAsked() bool { return p.left > p.free }

// lacks returns how many blocks the sole supplier has to send in all.
func (p *startedPiece) lacks() int { return p.blocks.len() - p.kept }

// retire returns p to the heap if all its blocks are free. If p is nil, it does nothing.
func (pk *Picker) retire(p *startedPiece) {
	if p == nil || p.free < p.blocks.len() {
		return
	}
	pk.endTurn(p)
	pk.forget(p)
	if i := int(p.piece); pk.need.Has(i) {
		pk.shelve(i)
	}
}

// forget removes a started piece.
func (pk *Picker) forget(p *startedPiece) {
	pk.close(p)
	delete(pk.started, p.piece)
	p.blocks.reset(0, &pk.runs)
	p.sole, p.parole = nil, false
	if len(pk.spare) < 64 {
		pk.spare = append(pk.spare, p)
	}
}

// reopen adds p to pk.open if it is wanted and has a free block.
func (pk *Picker) reopen(p *startedPiece) {
	if p.open || p.free == 0 || p.priority == 0 {
		return
	}
	pk.open = slices.Insert(pk.open, pk.placeOf(p), p)
	p.open = true
	for s := range pk.counting(int(p.piece)) {
		s.open++
	}
}

// placeOf returns the index of p in pk.open, or where to insert it.
func (pk *Picker) placeOf(p *startedPiece) int {
	at, _ := slices.BinarySearchFunc(pk.open, p, func(a, b *startedPiece) int {
		return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(a.attempt, b.attempt))
	})
	return at
}

// close removes p from pk.open.
func (pk *Picker) close(p *startedPiece) {
	if p.open {
		at := pk.placeOf(p)
		pk.open = slices.Delete(pk.open, at, at+1)
		p.open = false
		for s := range pk.counting(int(p.piece)) {
			s.open--
		}
	}
}
