// Package picker decides which blocks each supplier is asked for. The rarest pieces come first, started pieces
// before new ones. When nothing is free, a fast supplier takes over what a slow one was asked for. A piece that
// failed its hash is fetched from one supplier at a time, so that the one that lied is found.
//
// A Picker and the Suppliers that joined it are plain data. They belong to one download, which calls them under
// its mutex from any goroutine. The time is an argument; requests to send and to cancel are return values.
package picker

import (
	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
)

// A Picker holds what is known of the pieces and every outstanding request. Suppliers pull: one with room in its
// pipeline calls Next, and what it receives it reports with Received.
//
// A piece is in exactly one place: unwanted, in the heap (wanted and not started), started, verified, or in doubt.
type Picker struct {
	layout    layout.Layout
	heap      *pieceHeap
	have      bits.Set         // verified
	need      bits.Set         // wanted and not verified
	doubted   map[int]struct{} // verified once, and now to be hashed again
	started   map[int32]*startedPiece
	open      []*startedPiece // started and wanted, with a free block; by priority, then oldest first
	suppliers []*Supplier     // in the order in which they joined
	seeds     int             // suppliers that have everything
	attempts  uint64          // how often a piece was started
	spoiled   map[int32]*suspicion
	senders   []any           // origins of those that sent a block, by Supplier.sender
	liars     []bool          // which of them are known to lie
	spare     []*startedPiece // for reuse
	runs      blockRuns       // of blocks of started pieces
	steals    int64
	received  int64 // blocks that were accepted
	intake    intake
	loot      int64 // thefts that gained little
	work      int64
}

// Block names a block: the Index-th run of 16 KiB in a piece.
type Block struct{ Piece, Index int32 }

// A Request is for one block of one supplier. The caller sends it, or cancels it.
type Request struct {
	Supplier *Supplier
	Block    Block
}

// New returns a Picker of content that is cut as l says. No piece is wanted yet. seed decides between pieces that
// are equal otherwise.
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

// Suppliers are those that have joined and not left, in the order in which they joined. The caller must not change
// the list.
func (pk *Picker) Suppliers() []*Supplier { return pk.suppliers }

// Verified is the set of pieces that are verified. The caller must not change it.
func (pk *Picker) Verified() *bits.Set { return &pk.have }

// Needed is the set of pieces that are wanted and not verified. The caller must not change it.
func (pk *Picker) Needed() *bits.Set { return &pk.need }

// Availability is how many suppliers have piece i, not counting those that have everything.
func (pk *Picker) Availability(i int) uint16 { return pk.heap.avail[i] }

// NumStarted is how many pieces are started.
func (pk *Picker) NumStarted() int { return len(pk.started) }

// Memory is about how many bytes are kept of started pieces.
func (pk *Picker) Memory() int {
	n := pk.runs.inUse * runLength * blockMemory
	for _, p := range pk.started {
		n += startedMemory + len(p.blocks.runs)*8
	}
	return n
}

// The memory for the state of a started piece, here and in the caller, beside its blocks, and for that of each block.
const (
	startedMemory = 512
	blockMemory   = 24
)

// Steals is how many blocks were asked of a second supplier.
func (pk *Picker) Steals() int64 { return pk.steals }

// piecesPerStep is how many pieces of a bitfield a pass gets over in the time of one step.
const piecesPerStep = 512

// Work counts the steps that were taken so far to choose what to ask for and to count what suppliers have. Each takes some
// nanoseconds.
func (pk *Picker) Work() int64 { return pk.work + pk.heap.work }

// blockLen is the length of a block in bytes.
func (pk *Picker) blockLen(b Block) int { return pk.layout.BlockLen(int(b.Piece), int(b.Index)) }
