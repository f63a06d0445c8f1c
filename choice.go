package torrent

import (
	"fmt"
	"slices"
	"time"
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
		missing: make([]int32, len(t.files)),
		isDone:  make([]bool, len(t.files)),
	}
	for i := range t.files {
		first, end := t.piecesOf(&t.files[i])
		c.missing[i] = int32(end - first)
	}
	return c
}

// choosePriorities asks sel about each file; nil is Normal for all. Padding is wanted as much as the
// file before it, so that who wants everything also ends up with every piece.
func choosePriorities(t *Torrent, sel func(File) Priority) []Priority {
	chosen := make([]Priority, len(t.files))
	for i, f := range t.files {
		switch {
		case sel == nil:
			chosen[i] = Normal
		case !f.pad:
			chosen[i] = min(max(sel(f), Skip), High)
		case i > 0:
			chosen[i] = chosen[i-1]
		}
	}
	return chosen
}

// set chooses anew, while have is what is verified.
func (c *choice) set(priority []Priority, have *Bitfield) {
	c.priority = priority
	c.wanted, c.verified = 0, 0
	for i, f := range c.t.files {
		c.note(i)
		if c.priority[i] == Skip || f.pad {
			continue
		}
		c.wanted += f.Length
		first, end := c.t.piecesOf(&f)
		for k := first; k < end; k++ {
			if have.Has(k) {
				c.verified += c.overlap(i, k)
			}
		}
	}
}

// overlap is how many bytes of file i are in piece k.
func (c *choice) overlap(i, k int) int64 {
	f := &c.t.files[i]
	begin := int64(k) * c.t.pieceLength
	return min(f.offset+f.Length, begin+c.t.pieceSize(k)) - max(f.offset, begin)
}

// note puts file i among those that are done, if it is chosen and whole.
func (c *choice) note(i int) {
	if c.missing[i] == 0 && c.priority[i] != Skip && !c.t.files[i].pad && !c.isDone[i] {
		c.isDone[i] = true
		c.done = append(c.done, i)
	}
}

// files are the chosen ones, padding left out.
func (c *choice) files() (chosen []int) {
	for i, p := range c.priority {
		if p != Skip && !c.t.files[i].pad {
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
	for i := range c.t.files {
		if c.priority[i] == Skip {
			continue
		}
		first, end := c.t.piecesOf(&c.t.files[i])
		for k := first; k < end; k++ {
			all[k] = max(all[k], uint8(pieceNormal+c.priority[i]))
		}
	}
	return all
}

// piece notes that piece i was verified, or is not any more.
func (c *choice) piece(i int, verified bool) {
	for f := range c.t.filesOf(i) {
		n := c.overlap(f, i)
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

// Select chooses anew which files to download, while the download runs. What is already there stays;
// a download that is complete and ended cannot be widened. Nil is Normal for all.
func (d *Download) Select(sel func(File) Priority) {
	priority := choosePriorities(d.t, sel)
	d.choosing.Lock() // one at a time, though storage is told without the mutex
	defer d.choosing.Unlock()
	if d.ended() {
		return
	}
	if err := d.choose(priority); err != nil {
		d.fail(err)
	}
	d.signal()
}

// choose follows a choice of files.
func (d *Download) choose(priority []Priority) error {
	wanted := make([]bool, len(priority))
	for i, p := range priority {
		wanted[i] = p != Skip
	}
	if err := d.store.setWanted(wanted); err != nil {
		return fmt.Errorf("choose files: %w", err)
	}
	now := time.Now()
	d.mu.Lock()
	defer d.unlock(now)
	d.choice.set(priority, &d.sched.have)
	if d.isDone() {
		d.files.choose(d.choice.whole()) // what is not yet there is added once all is
	}
	d.reprioritise(now)
	d.announceNews()
	return nil
}

// reprioritise brings the choice, and what readers wait for, to the scheduler.
func (d *Download) reprioritise(now time.Time) {
	d.base = d.choice.pieces()
	for i, priority := range d.base {
		d.prioritise(i, priority)
	}
	d.followReaders(now)
	for _, p := range d.peers {
		d.updateInterest(p)
	}
	d.noteMissing(now)
	d.freed = true
}

// noteMissing acts on something being wanted again after all that was wanted had been there.
func (d *Download) noteMissing(now time.Time) {
	if !d.complete || d.sched.need.Count() == 0 {
		return
	}
	d.complete = false
	d.lastProgress = now // nothing was to be waited for until now
	d.cand.recall(now)
	for _, p := range d.peers {
		if p.extended {
			p.sendExtHandshake() // we are no longer upload only (BEP 21)
		}
	}
	d.signal()
}

func (d *Download) prioritise(i int, priority uint8) {
	for _, c := range d.sched.prioritise(i, priority) {
		d.cancel(c.remote, c.block)
	}
}

// gotPiece notes that piece i is verified and on storage.
func (d *Download) gotPiece(i int) {
	if d.sched.have.Has(i) {
		return
	}
	for _, c := range d.sched.verified(i) {
		d.cancel(c.remote, c.block)
	}
	d.choice.piece(i, true)
	d.announceNews()
}

// announceNews wakes whoever waits for pieces or files.
func (d *Download) announceNews() {
	if d.waiting > 0 || d.isDone() {
		close(d.news)
		d.news = make(chan struct{})
	}
}
