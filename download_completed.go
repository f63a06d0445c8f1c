package torrent

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"time"
)

// Completed yields each chosen file once it is complete and verified, those already complete first, and returns once the
// download is complete. If the download fails, or another program changed a file after the download had ended, the last
// pair holds the error. Breaking out of the loop leaves the download running.
func (d *Download) Completed() iter.Seq2[*DownloadedFile, error] {
	return func(yield func(*DownloadedFile, error) bool) {
		d.watch(1)
		defer d.watch(-1)
		y := yielded{files: make(map[int]bool), again: make(map[int]bool)}
		var changed error
		var again <-chan time.Time
		for due := false; ; {
			gone := d.isGone()
			d.mu.Lock()
			fresh := y.fresh(&d.selection.choice, due || gone)
			settled := d.isSettled() && !d.progress.checking
			changes, done, result := d.reading.changed, d.isDone(), d.life.result
			d.mu.Unlock()
			due = false
			doubted := false
			for _, i := range fresh {
				if err := d.store.ChangedFile(i); err != nil {
					changed, y.again[i] = err, true
					if d.t.layout.File(i).Length > 0 && !gone {
						first, _ := d.t.layout.PiecesOf(i)
						doubted = d.recheck(first, err) || doubted // then it is fetched again
						again = time.After(lookAgain)              // or it could not be examined
					}
					continue
				}
				if !d.hasAll(d.t.layout.PiecesOf(i)) {
					doubted = true // a piece was put in doubt meanwhile, which ChangedFile does not report
					continue
				}
				y.files[i] = true
				if !yield(d.files.file(i), nil) {
					return
				}
			}
			switch {
			case done && result != nil:
				yield(nil, result)
				return
			case doubted:
			case settled && d.allYielded(&y):
				return
			case gone:
				yield(nil, cmp.Or(changed, ErrClosed))
				return
			default:
				select {
				case <-changes:
				case <-again:
					due, again = true, nil
				case <-d.life.gone:
				}
			}
		}
	}
}

// yielded is what Completed has yielded of a choice. It looks at few files at a time, because there may be very many, and some of them may be
// lost and completed again and again.
type yielded struct {
	files map[int]bool
	again map[int]bool // files that are to be looked at again
	next  int          // what was looked at of choice.done
	moved int          // choice.moved at that time
	first int          // where to look for a chosen file that was not yielded
	steps int          // files looked at
}

// fresh returns the files that are done and were not returned before or, with again, are to be looked at again. The caller holds the mutex
// of the download.
func (y *yielded) fresh(c *choice, again bool) (fresh []int) {
	if y.moved != c.moved {
		y.next, y.moved = 0, c.moved
	}
	if again {
		y.steps += len(y.again)
		for _, i := range slices.Sorted(maps.Keys(y.again)) {
			if c.isDone[i] && int(c.doneAt[i]) < y.next && !y.files[i] {
				fresh = append(fresh, i)
			}
		}
		clear(y.again)
	}
	y.steps += len(c.done) - y.next
	for _, i := range c.done[y.next:] {
		if i >= 0 && !y.files[i] {
			fresh = append(fresh, i)
		}
	}
	y.next = len(c.done)
	return fresh
}

// all reports whether all chosen files were yielded. The caller holds the mutex of the download.
func (y *yielded) all(c *choice) bool {
	for range c.priority {
		y.steps++
		if i := y.first; c.priority[i].chosen() && !c.t.layout.File(i).Pad && !y.files[i] {
			return false
		}
		y.first = (y.first + 1) % len(c.priority)
	}
	return true
}

func (d *Download) allYielded(y *yielded) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return y.all(&d.selection.choice)
}

// watch adds n to the number of goroutines that may wait for changes.
func (d *Download) watch(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reading.watchers += n
}
