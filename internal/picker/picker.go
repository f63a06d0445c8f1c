// Package picker decides which blocks to request from which supplier. Started pieces come before new ones, and the rarest of
// these first. When no block is free, a fast supplier takes over requests to a slow one. A piece that failed its hash is fetched
// from one supplier at a time, to find out which one lied.
//
// A Picker and the Suppliers that joined it are plain data. They belong to one download, which calls them from any goroutine
// while it holds its mutex. The time is an argument. Requests to send and to cancel are return values.
package picker

import (
	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
)

// A Picker holds the state of all pieces and every outstanding request. Suppliers pull: one with room in its pipeline calls Next,
// and reports each received block with Received.
//
// A piece is in exactly one state: unwanted, in the heap (wanted and not started), started, verified, or in doubt.
type Picker struct {
	layout    layout.Layout
	heap      *pieceHeap
	have      bits.Set         // verified
	need      bits.Set         // wanted and not verified
	doubted   map[int]struct{} // verified before, and to be hashed again
	started   map[int32]*startedPiece
	open      []*startedPiece      // started and wanted, with a free block; by priority, then oldest first
	suppliers []*Supplier          // in the order in which they joined
	attempts  uint64               // number of times that a piece was started
	spoiled   map[int32]*suspicion // pieces that failed their hash
	records   int                  // of these, in all
	ranking   ranking              // of the present call of Next, NextRun or Rush
	senders   senders              // origins of the suppliers that sent a block, by Supplier.sender
	spare     []*startedPiece      // for reuse
	runs      blockRuns            // of blocks of started pieces
	steals    int64                // see Steals
	received  int64                // accepted blocks
	intake    intake
	loot      int64 // thefts that gained little
	runsFrom  int   // the piece with which runStart begins
	work      int64 // see Work
}

// Block identifies a block: the Index-th 16 KiB of a piece.
type Block struct{ Piece, Index int32 }

// A Request is a request for one block from one supplier. The caller sends or cancels it.
type Request struct {
	Supplier *Supplier
	Block    Block
}

// New returns a Picker for content with the layout l. No piece is wanted yet. seed determines the order of pieces of equal
// priority and availability.
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

// Suppliers returns the suppliers that have joined and not left, in the order in which they joined. The caller must not change
// the slice.
func (pk *Picker) Suppliers() []*Supplier { return pk.suppliers }

// Verified returns the set of verified pieces. The caller must not change it.
func (pk *Picker) Verified() *bits.Set { return &pk.have }

// Needed returns the set of pieces that are wanted and not verified. The caller must not change it.
func (pk *Picker) Needed() *bits.Set { return &pk.need }

// Availability returns the number of peers that have piece i, not counting those that have everything.
func (pk *Picker) Availability(i int) uint16 { return pk.heap.avail[i] }

// NumStarted returns the number of started pieces.
func (pk *Picker) NumStarted() int { return len(pk.started) }

// Memory returns the approximate memory of the state of started pieces, in bytes.
func (pk *Picker) Memory() int {
	return len(pk.started)*startedMemory + pk.runs.entries*8 + pk.runs.inUse*runLength*blockMemory
}

// The memory of the state of a started piece, in bytes.
const (
	startedMemory = 512 // without its blocks, here and in the caller
	blockMemory   = 24  // of each block
)

// Steals returns how many blocks were requested from a second supplier.
func (pk *Picker) Steals() int64 { return pk.steals }

// piecesPerStep is the number of pieces of a bitfield that a pass covers in one step.
const piecesPerStep = 512

// Work returns the number of steps taken so far to choose blocks and to count the pieces of suppliers. A step takes some
// nanoseconds.
func (pk *Picker) Work() int64 { return pk.work + pk.heap.work }

// blockLen returns the length of a block in bytes.
func (pk *Picker) blockLen(b Block) int { return pk.layout.BlockLen(int(b.Piece), int(b.Index)) }
