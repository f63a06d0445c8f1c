package torrent

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
)

// selection holds which files are wanted.
type selection struct {
	// choosing is held while files are chosen, and while what is chosen becomes complete. It is taken before the
	// download's mutex, so that storage can be told of a choice without the mutex.
	choosing sync.Mutex
	choice   choice
	base     []uint8 // priorities of pieces by choice, before readers raise some
	opened   []bool  // by file: it is OnDemand, or was, and storage has a place for it; guarded by choosing
}

// Select changes which files to download, while the download runs. Data that is already there stays. If the new choice
// has missing files, Wait, Done and Completed are about the new choice from then on. If nothing is chosen, the download
// waits for another choice. A download that is complete and has ended cannot choose more. Nil is Normal for all files.
func (d *Download) Select(sel func(File) Priority) {
	priority := choosePriorities(d.t, sel)
	inTime(d.life.parent, func() error {
		d.chooseNow(priority)
		return nil
	})
}

func (d *Download) chooseNow(priority []Priority) {
	d.selection.choosing.Lock() // one Select at a time: storage is told without the mutex
	defer d.selection.choosing.Unlock()
	if d.ended() {
		return
	}
	if err := d.choose(priority); err != nil {
		d.fail(err)
	}
	d.signal()
}

// choose applies a choice of files.
func (d *Download) choose(priority []Priority) error {
	wanted := make([]bool, len(priority))
	for i, p := range priority {
		wanted[i] = p.chosen() || p == OnDemand && d.selection.opened[i]
	}
	if err := d.store.SetWanted(wanted); err != nil {
		return fmt.Errorf("choose files: %w", err)
	}
	doubted := false
	d.mu.Lock()
	settle, have := !d.progress.checking, d.picker.Verified().Clone()
	d.mu.Unlock()
	if settle {
		if err := d.store.Settle(d.life.ctx, have); err != nil {
			return fmt.Errorf("choose files: %w", err)
		}
		doubted = d.doubtChosen(priority)
	}
	now := time.Now()
	d.mu.Lock()
	defer d.unlock(now)
	d.selection.choice.set(priority, d.picker.Verified())
	if d.isDone() {
		d.files.choose(d.selection.choice.whole()) // the others are added once all are there
	}
	d.reprioritise(now)
	if doubted && d.progress.complete { // until they are hashed
		d.goOn(now)
	}
	d.broadcast()
	return nil
}

// doubtChosen doubts the files that are chosen now, were not before and seem to be whole, if they are not as they were left, and reports
// whether any is: another program may have put a file in the place of one whose bytes were in the edges. Of files that are not whole
// this is found once they are.
func (d *Download) doubtChosen(priority []Priority) (doubted bool) {
	var files []int
	d.mu.Lock()
	c := &d.selection.choice
	for i, p := range priority {
		if f := d.t.layout.File(i); p.chosen() && !c.priority[i].chosen() && c.missing[i] == 0 && !f.Pad && f.Length > 0 {
			files = append(files, i)
		}
	}
	d.mu.Unlock()
	var pieces []int
	for _, i := range files {
		if d.ended() {
			break // Close waits for this
		}
		if errors.Is(d.store.ChangedFile(i), storage.ErrChanged) {
			first, _ := d.t.layout.PiecesOf(i)
			pieces = append(pieces, first)
		}
	}
	if len(pieces) > 0 {
		d.doubt(slices.Compact(pieces)...)
	}
	return len(pieces) > 0
}

// openOnDemand makes a place in storage for a file that is OnDemand. Such a file has none before it is opened.
func (d *Download) openOnDemand(file int) error {
	s := &d.selection
	s.choosing.Lock()
	defer s.choosing.Unlock()
	d.mu.Lock()
	priority := s.choice.priority
	d.mu.Unlock()
	if priority[file] != OnDemand || s.opened[file] || d.ended() {
		return nil
	}
	s.opened[file] = true
	err := d.choose(priority)
	s.opened[file] = err == nil
	return err
}

// reprioritise tells the picker of the choice and of what readers wait for. The caller holds d.mu.
func (d *Download) reprioritise(now time.Time) {
	idle := d.picker.Needed().Count() == 0
	d.selection.base = d.selection.choice.pieces()
	for i, priority := range d.selection.base {
		d.prioritise(i, priority)
	}
	d.hashing.lacking = 0
	d.awaitLayers()
	d.followReaders(now)
	for _, p := range d.swarm.peers {
		d.updateInterest(p)
	}
	d.becomeIncomplete(now)
	if idle {
		d.stir(now)
	}
	d.pending.freed = true
}

// lacking reports whether something that is chosen is needed. What only readers need does not count.
// The caller holds d.mu.
func (d *Download) lacking() bool {
	for i := range d.picker.Needed().All() {
		if d.selection.base[i] > pieceSkip {
			return true
		}
	}
	return false
}

// sated reports whether nothing more is needed from peers, now or by a later reader. The caller holds d.mu.
func (d *Download) sated() bool {
	return d.picker.Needed().Count() == 0 && d.selection.choice.demand == 0
}

// stir looks for peers if nothing was needed until now and something is. The caller holds d.mu.
func (d *Download) stir(now time.Time) {
	if d.progress.checking || d.picker.Needed().Count() == 0 {
		return
	}
	d.progress.waitsFrom(now)
	d.discovery.candidates.Recall(now)
	d.discovery.wakeSources(true)
	d.startWebSeeds()
	d.signal()
}

// becomeIncomplete resumes a complete download if a chosen file has missing pieces. The caller holds d.mu.
func (d *Download) becomeIncomplete(now time.Time) {
	if d.progress.complete && d.lacking() {
		d.goOn(now)
	}
}

// goOn resumes a complete download. The caller holds d.mu.
func (d *Download) goOn(now time.Time) {
	d.progress.complete = false
	if d.isSettled() && !d.ended() {
		d.life.settled = make(chan struct{})
	}
	d.stir(now)
	for _, p := range d.swarm.peers {
		if p.extended {
			p.sendExtHandshake() // we are no longer upload only (BEP 21)
		}
	}
	d.signal()
}

// The caller holds d.mu.
func (d *Download) prioritise(i int, priority uint8) {
	d.cancelAll(d.picker.Prioritise(i, priority))
}

// broadcast wakes everything that waits for pieces or files. The caller holds d.mu.
func (d *Download) broadcast() {
	if d.reading.watchers > 0 || d.isDone() {
		close(d.reading.changed)
		d.reading.changed = make(chan struct{})
	}
}

// Priorities of pieces: those of files, and above them those of pieces that a reader needs, the sooner the higher.
const (
	pieceSkip   = 0
	pieceNormal = 1
	pieceHigh   = 2
	pieceUrgent = 3 // and all above
	pieceNow    = 255
)

// A choice holds which files of a download are wanted, and how much of them is verified. The download's mutex guards
// it.
type choice struct {
	t        *Torrent
	priority []Priority // by file
	missing  []int32    // by file: its pieces that are not verified
	changes  []int32    // by file: how often a piece of it became verified, or no longer was
	done     []int      // chosen files that are whole, in the order in which they were completed; -1 was one
	isDone   []bool     // by file: is in done
	doneAt   []int32    // by file that is in done: where
	gone     int        // how many of done are -1
	moved    int        // how often files in done got other places
	chosen   int        // number of chosen files
	demand   int        // number of files that are OnDemand and not whole
	wanted   int64      // bytes of the chosen files
	verified int64      // bytes of the chosen files that are verified
}

func newChoice(t *Torrent) choice {
	c := choice{
		t:       t,
		missing: make([]int32, t.layout.NumFiles()),
		changes: make([]int32, t.layout.NumFiles()),
		isDone:  make([]bool, t.layout.NumFiles()),
		doneAt:  make([]int32, t.layout.NumFiles()),
	}
	for i := range t.layout.NumFiles() {
		first, end := t.layout.PiecesOf(i)
		c.missing[i] = int32(end - first)
	}
	return c
}

// choosePriorities calls sel for each file; nil is Normal for all. Padding gets the priority of the file before it that has bytes, so
// that choosing everything chooses every piece.
func choosePriorities(t *Torrent, sel func(File) Priority) []Priority {
	chosen := make([]Priority, t.layout.NumFiles())
	var before Priority
	for i, f := range t.layout.Files() {
		switch {
		case sel == nil:
			chosen[i] = Normal
		case !f.Pad:
			if chosen[i] = min(sel(t.file(i)), High); chosen[i] < OnDemand {
				chosen[i] = Skip
			}
			if f.Length > 0 {
				before = chosen[i]
			}
		default:
			chosen[i] = before
		}
	}
	return chosen
}

// set replaces the priorities. have is the set of verified pieces.
func (c *choice) set(priority []Priority, have *bits.Set) {
	c.priority = priority
	c.wanted, c.verified, c.chosen, c.demand = 0, 0, 0, 0
	for i, f := range c.t.layout.Files() {
		c.note(i)
		if c.demanded(i) && c.missing[i] > 0 {
			c.demand++
		}
		if !c.priority[i].chosen() || f.Pad {
			continue
		}
		c.chosen++
		c.wanted += f.Length
		first, end := c.t.layout.PiecesOf(i)
		for k := first; k < end; k++ {
			if have.Has(k) {
				c.verified += c.t.layout.Overlap(i, k)
			}
		}
	}
}

// left returns the number of missing bytes that trackers are told, files on demand included.
func (c *choice) left() int64 {
	n := c.wanted - c.verified
	for i, f := range c.t.layout.Files() {
		if c.demanded(i) {
			n += min(f.Length, int64(c.missing[i])*c.t.layout.PieceLength())
		}
	}
	return n
}

// demanded reports whether file i is OnDemand.
func (c *choice) demanded(i int) bool {
	return c.priority[i] == OnDemand && !c.t.layout.File(i).Pad
}

// note adds file i to those that are done, if it is chosen and whole.
func (c *choice) note(i int) {
	if c.missing[i] == 0 && c.priority[i].chosen() && !c.t.layout.File(i).Pad && !c.isDone[i] {
		c.isDone[i], c.doneAt[i] = true, int32(len(c.done))
		c.done = append(c.done, i)
	}
}

// undo takes file i from those that are done. Thousands may go one after the other.
func (c *choice) undo(i int) {
	if !c.isDone[i] {
		return
	}
	c.isDone[i] = false
	c.done[c.doneAt[i]] = -1
	if c.gone++; 2*c.gone < len(c.done) {
		return
	}
	c.moved++
	c.done, c.gone = slices.DeleteFunc(c.done, func(k int) bool { return k < 0 }), 0
	for at, k := range c.done {
		c.doneAt[k] = int32(at)
	}
}

// files are the chosen files, padding left out.
func (c *choice) files() (chosen []int) {
	for i, p := range c.priority {
		if p.chosen() && !c.t.layout.File(i).Pad {
			chosen = append(chosen, i)
		}
	}
	return chosen
}

// whole returns the chosen files of which every piece is verified.
func (c *choice) whole() []int {
	return slices.DeleteFunc(c.files(), func(i int) bool { return c.missing[i] > 0 })
}

// pieces returns the priorities of all pieces.
func (c *choice) pieces() []uint8 {
	all := make([]uint8, c.t.NumPieces())
	for i := range c.t.layout.NumFiles() {
		if !c.priority[i].chosen() {
			continue
		}
		first, end := c.t.layout.PiecesOf(i)
		for k := first; k < end; k++ {
			all[k] = max(all[k], uint8(pieceNormal+c.priority[i]))
		}
	}
	return all
}

// piece records that piece i was verified, or no longer is.
func (c *choice) piece(i int, verified bool) {
	for f := range c.t.layout.FilesOf(i) {
		n := c.t.layout.Overlap(f, i)
		if !c.priority[f].chosen() {
			n = 0
		}
		before := c.missing[f]
		c.changes[f]++
		if verified {
			c.verified += n
			c.missing[f]--
			c.note(f)
		} else {
			c.verified -= n
			c.missing[f]++
			c.undo(f)
		}
		if c.demanded(f) && before+c.missing[f] == 1 { // whole now, or no longer
			c.demand += int(c.missing[f] - before)
		}
	}
}
