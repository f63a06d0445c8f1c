package torrent

import (
	"fmt"
	"iter"

	"github.com/shoal-go/torrent/internal/bits"
)

// Bitfield is a set of piece indices, 0 to Len()-1. It does not change. The zero value is empty, and its Len is 0.
type Bitfield struct {
	pieces bits.Set // never written to
}

// NewBitfield returns a set of some of n pieces, such as a Storage says are whole. It panics if one is out of range.
func NewBitfield(n int, pieces ...int) Bitfield {
	set := bits.New(n)
	for _, i := range pieces {
		if i < 0 || i >= n {
			panic(fmt.Sprintf("torrent: piece %d of %d", i, n))
		}
		set.Add(i)
	}
	return Bitfield{set}
}

// Len is the number of pieces of the torrent, set or not.
func (b Bitfield) Len() int { return b.pieces.Len() }

// Count is the number of pieces that are set.
func (b Bitfield) Count() int { return b.pieces.Count() }

// Has reports whether piece i is set. A piece out of range is not.
func (b Bitfield) Has(i int) bool { return b.pieces.Has(i) }

// All yields the pieces that are set, in ascending order.
func (b Bitfield) All() iter.Seq[int] { return b.pieces.All() }
