package torrent

import (
	"fmt"
	"sync"
	"time"
)

// selection is which files are wanted.
type selection struct {
	// choosing is held while files are chosen, and while what is chosen becomes complete. It is taken before the
	// download's mutex, so that storage can be told of a choice without that.
	choosing sync.Mutex
	choice   choice
	base     []uint8 // priorities of pieces that the choice gives, before readers add theirs
}

// Select chooses anew which files to download, while the download runs. What is already there stays;
// a download that is complete and ended cannot be widened. Nil is Normal for all.
func (d *Download) Select(sel func(File) Priority) {
	priority := choosePriorities(d.t, sel)
	d.selection.choosing.Lock() // one at a time, though storage is told without the mutex
	defer d.selection.choosing.Unlock()
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
	if err := d.store.SetWanted(wanted); err != nil {
		return fmt.Errorf("choose files: %w", err)
	}
	now := time.Now()
	d.mu.Lock()
	defer d.unlock(now)
	d.selection.choice.set(priority, d.picker.Verified())
	if d.isDone() {
		d.files.choose(d.selection.choice.whole()) // what is not yet there is added once all is
	}
	d.reprioritise(now)
	d.broadcast()
	return nil
}

// reprioritise brings the choice, and what readers wait for, to the picker.
func (d *Download) reprioritise(now time.Time) {
	d.selection.base = d.selection.choice.pieces()
	for i, priority := range d.selection.base {
		d.prioritise(i, priority)
	}
	d.followReaders(now)
	for _, p := range d.swarm.peers {
		d.updateInterest(p)
	}
	d.becomeIncomplete(now)
	d.pending.freed = true
}

// becomeIncomplete acts on something being wanted again after all that was wanted had been there.
func (d *Download) becomeIncomplete(now time.Time) {
	if !d.progress.complete || d.picker.Needed().Count() == 0 {
		return
	}
	d.progress.complete = false
	d.progress.last = now // nothing was to be waited for until now
	d.discovery.cand.Recall(now)
	d.discovery.wakeSources()
	for _, p := range d.swarm.peers {
		if p.extended {
			p.sendExtHandshake() // we are no longer upload only (BEP 21)
		}
	}
	d.signal()
}

func (d *Download) prioritise(i int, priority uint8) {
	d.cancelAll(d.picker.Prioritise(i, priority))
}

// broadcast wakes everything that waits for pieces or files.
func (d *Download) broadcast() {
	if d.reading.watchers > 0 || d.isDone() {
		close(d.reading.changed)
		d.reading.changed = make(chan struct{})
	}
}
