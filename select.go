package torrent

import (
	"fmt"
	"time"
)

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
	if err := d.store.SetWanted(wanted); err != nil {
		return fmt.Errorf("choose files: %w", err)
	}
	now := time.Now()
	d.mu.Lock()
	defer d.unlock(now)
	d.choice.set(priority, d.picker.Verified())
	if d.isDone() {
		d.files.choose(d.choice.whole()) // what is not yet there is added once all is
	}
	d.reprioritise(now)
	d.broadcast()
	return nil
}

// reprioritise brings the choice, and what readers wait for, to the picker.
func (d *Download) reprioritise(now time.Time) {
	d.base = d.choice.pieces()
	for i, priority := range d.base {
		d.prioritise(i, priority)
	}
	d.followReaders(now)
	for _, p := range d.peers {
		d.updateInterest(p)
	}
	d.becomeIncomplete(now)
	d.freed = true
}

// becomeIncomplete acts on something being wanted again after all that was wanted had been there.
func (d *Download) becomeIncomplete(now time.Time) {
	if !d.complete || d.picker.Needed().Count() == 0 {
		return
	}
	d.complete = false
	d.lastProgress = now // nothing was to be waited for until now
	d.cand.Recall(now)
	d.wakeSources()
	for _, p := range d.peers {
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
	if d.watchers > 0 || d.isDone() {
		close(d.changed)
		d.changed = make(chan struct{})
	}
}
