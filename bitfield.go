package torrent

import (
	"iter"

	"github.com/shoal-go/torrent/internal/bits"
)

// Bitfield is a set of piece indices, 0 to Len()-1. The zero value is empty and has no room.
//
// A Bitfield that the library hands out is the caller's own: nothing writes to it afterwards.
type Bitfield struct {
	pieces bits.Set // never written to
}

// Len is how many pieces the bitfield speaks of, set or not.
func (b Bitfield) Len() int { return b.pieces.Len() }

// Count is how many pieces are set.
func (b Bitfield) Count() int { return b.pieces.Count() }

// Has tells whether piece i is set. A piece out of range is not.
func (b Bitfield) Has(i int) bool { return b.pieces.Has(i) }

// All yields the pieces that are set, in ascending order.
func (b Bitfield) All() iter.Seq[int] { return b.pieces.All() }
