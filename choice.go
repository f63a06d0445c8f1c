package torrent

import (
	"slices"

	"github.com/shoal-go/torrent/internal/bits"
)

// Priorities of pieces, as the heap orders them: those of files, and above them those that a reader
// waits for, the sooner the higher.
const (
	pieceSkip   = 0
	pieceNormal = 1
	pieceHigh   = 2
	pieceUrgent = 3 // and all above
	pieceNow    = 255
)

// A choice is which files of a download are wanted, and how far each of them is. The download's
// mutex guards it.
type choice struct {
	t        *Torrent
	priority []Priority // by file
	missing  []int32    // by file: its pieces that are not verified
	done     []int      // chosen files that are whole, in the order in which they became so
	isDone   []bool     // by file: is in done
	wanted   int64      // bytes of the chosen files
	verified int64      // bytes of the chosen files that are verified
}

func newChoice(t *Torrent) choice {
	c := choice{
		t:       t,
		missing: make([]int32, t.layout.NumFiles()),
		isDone:  make([]bool, t.layout.NumFiles()),
	}
	for i := range t.layout.NumFiles() {
		first, end := t.layout.PiecesOf(i)
		c.missing[i] = int32(end - first)
	}
	return c
}

// choosePriorities asks sel about each file; nil is Normal for all. Padding is wanted as much as the
// file before it, so that who wants everything also ends up with every piece.
func choosePriorities(t *Torrent, sel func(File) Priority) []Priority {
	chosen := make([]Priority, t.layout.NumFiles())
	for i, f := range t.layout.Files() {
		switch {
		case sel == nil:
			chosen[i] = Normal
		case !f.Pad:
			chosen[i] = min(max(sel(t.file(i)), Skip), High)
		case i > 0:
			chosen[i] = chosen[i-1]
		}
	}
	return chosen
}

// set chooses anew, while have is what is verified.
func (c *choice) set(priority []Priority, have *bits.Set) {
	c.priority = priority
	c.wanted, c.verified = 0, 0
	for i, f := range c.t.layout.Files() {
		c.note(i)
		if c.priority[i] == Skip || f.Pad {
			continue
		}
		c.wanted += f.Length
		first, end := c.t.layout.PiecesOf(i)
		for k := first; k < end; k++ {
			if have.Has(k) {
				c.verified += c.t.layout.Overlap(i, k)
			}
		}
	}
}

// note puts file i among those that are done, if it is chosen and whole.
func (c *choice) note(i int) {
	if c.missing[i] == 0 && c.priority[i] != Skip && !c.t.layout.File(i).Pad && !c.isDone[i] {
		c.isDone[i] = true
		c.done = append(c.done, i)
	}
}

// files are the chosen ones, padding left out.
func (c *choice) files() (chosen []int) {
	for i, p := range c.priority {
		if p != Skip && !c.t.layout.File(i).Pad {
			chosen = append(chosen, i)
		}
	}
	return chosen
}

// whole are the chosen files of which every piece is verified.
func (c *choice) whole() []int {
	return slices.DeleteFunc(c.files(), func(i int) bool { return c.missing[i] > 0 })
}

// pieces are the priorities that the choice gives to the pieces.
func (c *choice) pieces() []uint8 {
	all := make([]uint8, c.t.NumPieces())
	for i := range c.t.layout.NumFiles() {
		if c.priority[i] == Skip {
			continue
		}
		first, end := c.t.layout.PiecesOf(i)
		for k := first; k < end; k++ {
			all[k] = max(all[k], uint8(pieceNormal+c.priority[i]))
		}
	}
	return all
}

// piece notes that piece i was verified, or is not any more.
func (c *choice) piece(i int, verified bool) {
	for f := range c.t.layout.FilesOf(i) {
		n := c.t.layout.Overlap(f, i)
		if c.priority[f] == Skip {
			n = 0
		}
		if verified {
			c.verified += n
			c.missing[f]--
			c.note(f)
		} else {
			c.verified -= n
			c.missing[f]++
			if c.isDone[f] {
				c.isDone[f] = false
				c.done = slices.DeleteFunc(c.done, func(k int) bool { return k == f })
			}
		}
	}
}
