package picker

import (
	"cmp"
	"slices"

	"github.com/shoal-go/torrent/internal/bits"
)

// Started is what is known of a started piece. The zero value is of a piece that is not started.
type Started struct {
	Attempt uint64    // another each time that the piece is started; 0 if it is not
	Left    int       // blocks that are not here
	Free    int       // blocks that are not here and that no supplier is asked for
	Parole  bool      // it failed its hash before, so all blocks that are not here from then are to come from one supplier
	Kept    int       // blocks that are here from then; what it lacks is first asked of others than those who sent it before
	Sole    *Supplier // that supplier, once there is one
}

// Started returns what is known of piece i. Blocks of it that were accepted in another attempt are of no use.
func (pk *Picker) Started(i int) Started {
	p := pk.started[int32(i)]
	if p == nil {
		return Started{}
	}
	return Started{p.attempt, p.left, p.free, p.parole, p.kept, p.sole}
}

// Arrived is the set of blocks of piece i, which must be started, that are here.
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

// startedPiece is a piece of which blocks were asked for.
type startedPiece struct {
	piece    int32
	priority uint8
	attempt  uint64
	blocks   blockTable
	free     int       // blocks that are neither here nor under way
	left     int       // blocks that are not here
	cursor   int       // no block before it is free
	open     bool      // it is in Picker.open
	kept     int       // blocks that are here from an attempt that failed, and not under suspicion first
	parole   bool      // it failed its hash before: all blocks but the kept ones are to come from sole
	sole     *Supplier // nil if it is not on parole, or no supplier has been asked yet
}

type block struct {
	owner  [2]*Supplier // those that were asked for it and have not answered
	sender int32        // index into Picker.senders, or one of the values below
	kept   bool         // it is one of startedPiece.kept
}

const (
	noSender    = -1 // the block is not here
	fromStorage = -2 // an earlier run left it
)

func (b *block) here() bool { return b.sender != noSender }

func (b *block) free() bool { return b.owner[0] == nil && b.owner[1] == nil && !b.here() }

// copies is how many suppliers are asked for the block.
func (b *block) copies() int {
	n := 0
	for _, o := range b.owner {
		if o != nil {
			n++
		}
	}
	return n
}

// addOwner records that s is asked for the block. Only one other may be.
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

// start begins piece i, which may be in the heap or unwanted.
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

// reset frees all blocks of p.
func (pk *Picker) reset(p *startedPiece) {
	n := pk.layout.NumBlocks(int(p.piece))
	p.blocks.reset(n, &pk.runs)
	p.free, p.left, p.kept, p.cursor = n, n, 0, 0
}

// block returns block k of p, to be changed.
func (pk *Picker) block(p *startedPiece, k int32) *block { return p.blocks.ref(int(k), &pk.runs) }

// isFree reports whether block k is neither here nor under way.
func (p *startedPiece) isFree(k int) bool {
	b := p.blocks.at(k)
	return b.free()
}

// drop drops block k, which is b and is here.
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

// lacks is how many blocks its sole supplier has to send.
func (p *startedPiece) lacks() int { return p.blocks.len() - p.kept }

// retire returns p to the heap if none of its blocks is here or under way. A nil p is left alone.
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

// forget forgets a started piece.
func (pk *Picker) forget(p *startedPiece) {
	pk.close(p)
	delete(pk.started, p.piece)
	p.blocks.reset(0, &pk.runs)
	p.sole, p.parole = nil, false
	if len(pk.spare) < 64 {
		pk.spare = append(pk.spare, p)
	}
}

// reopen puts p among the open pieces if it belongs there.
func (pk *Picker) reopen(p *startedPiece) {
	if p.open || p.free == 0 || p.priority == 0 {
		return
	}
	pk.open = slices.Insert(pk.open, pk.placeOf(p), p)
	p.open = true
	pk.countOpen(int(p.piece), 1)
}

// placeOf is where p is in open, or belongs.
func (pk *Picker) placeOf(p *startedPiece) int {
	at, _ := slices.BinarySearchFunc(pk.open, p, func(a, b *startedPiece) int {
		return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(a.attempt, b.attempt))
	})
	return at
}

// close takes p from the open pieces.
func (pk *Picker) close(p *startedPiece) {
	if p.open {
		at := pk.placeOf(p)
		pk.open = slices.Delete(pk.open, at, at+1)
		p.open = false
		pk.countOpen(int(p.piece), -1)
	}
}
