package torrent

import (
	"errors"
	"fmt"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
)

// doubts are pieces in doubt. One goroutine hashes them, however many become that at once: it takes all that wait.
type doubts struct {
	waiting bits.Set
	hashed  chan struct{} // closed once what waits is hashed; nil if nothing does
	running bool          // the goroutine
}

// recheck drops a piece because storage failed or holds something else, until it was hashed again. Other pieces in the
// same files are rechecked with it.
func (d *Download) recheck(piece int, why error) {
	d.log.Warn("storage", "piece", piece, "err", why)
	d.mu.Lock()
	d.storageFailed(why)
	had := d.picker.Verified().Has(piece)
	_, again := d.disk.unreadable[piece]
	d.mu.Unlock()
	switch {
	case !had:
		return // it is being rechecked already
	case again && !errors.Is(why, storage.ErrChanged):
		d.fail(fmt.Errorf("read piece %d, which was fetched and written again: %w", piece, why))
		return
	}
	d.doubt(piece)
}

// doubt hashes pieces again, and those that are in files which have changed with them. Until then they are not there. It
// does not wait, and returns what is closed when they are hashed.
//
// Nothing that was verified is handed out of a file that has changed: its pieces are in doubt before the store accepts it
// as it is. They are put in doubt once more after that, because one may have been hashed before it.
func (d *Download) doubt(pieces ...int) (hashed <-chan struct{}) {
	d.mu.Lock()
	d.disk.rechecks++
	d.mu.Unlock()
	which := bits.New(d.t.NumPieces())
	for _, piece := range pieces {
		which.Add(piece)
	}
	d.distrust(which)
	for _, piece := range pieces {
		for {
			changed, err := d.store.Refresh(piece, which)
			if err != nil {
				break
			}
			if changed.RemoveAll(&which); changed.Count() == 0 {
				break
			}
			d.distrust(changed)
			for i := range changed.All() {
				which.Add(i)
			}
		}
	}
	now := time.Now()
	d.mu.Lock()
	defer d.unlock(now)
	d.disk.rechecks--
	return d.hashSoon(d.putInDoubt(which))
}

// distrust puts pieces in doubt.
func (d *Download) distrust(which bits.Set) {
	now := time.Now()
	d.mu.Lock()
	defer d.unlock(now)
	d.putInDoubt(which)
}

// putInDoubt puts pieces in doubt, as far as they are verified, and returns those that are in doubt now. The caller holds d.mu.
func (d *Download) putInDoubt(which bits.Set) (doubted bits.Set) {
	doubted = bits.New(d.t.NumPieces())
	for i := range which.All() {
		if a := d.assembling.pieces[int32(i)]; a != nil && a.direct {
			// Blocks on storage of a started piece may be wrong, too. The peers that sent them are not to blame.
			d.cancelAll(d.picker.Abandon(i))
			d.pending.freed = true
		}
		if d.picker.Doubt(i) {
			d.giveUp(i)
		}
		if d.picker.Doubted(i) {
			doubted.Add(i)
		}
	}
	return doubted
}

// hashSoon has pieces hashed that are in doubt. The caller holds d.mu.
func (d *Download) hashSoon(which bits.Set) (hashed <-chan struct{}) {
	if which.Count() == 0 || d.ended() {
		d.signal()
		done := make(chan struct{})
		close(done)
		return done
	}
	q := &d.disk.doubts
	if q.hashed == nil {
		q.waiting, q.hashed = bits.New(d.t.NumPieces()), make(chan struct{})
	}
	for i := range which.All() {
		q.waiting.Add(i)
	}
	if !q.running {
		q.running = true
		d.disk.rechecks++
		d.life.tasks.Go(d.hashDoubted)
	}
	return q.hashed
}

// hasAll reports whether the pieces from first to before end are verified, and none is in doubt.
func (d *Download) hasAll(first, end int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	have := d.picker.Verified()
	for !have.Full() && first < end {
		if !have.Has(first) {
			return false
		}
		first++
	}
	return true
}

// hashDoubted hashes what is in doubt until nothing is.
func (d *Download) hashDoubted() {
	for {
		d.mu.Lock()
		q := &d.disk.doubts
		which, hashed := q.waiting, q.hashed
		q.waiting, q.hashed = bits.Set{}, nil
		if hashed == nil {
			q.running = false
			d.disk.rechecks--
			d.signal()
			d.mu.Unlock()
			return
		}
		d.mu.Unlock()
		d.hashAgain(which)
		close(hashed)
	}
}

// hashAgain hashes pieces that are in doubt. A piece that cannot be read is fetched and written again: this repairs a
// bad sector, or returns an error that says why not.
func (d *Download) hashAgain(which bits.Set) {
	err := storage.Verify(d.life.ctx, d.t.content(), recheckReader{d.store, d.failedToRead}, which, func(i int, ok bool) {
		now := time.Now()
		d.mu.Lock()
		defer d.unlock(now)
		if q := &d.disk.doubts; q.hashed != nil && q.waiting.Has(i) {
			return // the file has changed again since
		}
		d.countChecked(i)
		if ok {
			d.foundOnDisk(i)
		} else {
			d.lost(i, now)
		}
	})
	if err != nil {
		d.endByStorage(fmt.Errorf("check again: %w", err))
	}
}

// giveUp tells peers that we no longer have a piece that is in doubt. The caller holds d.mu.
func (d *Download) giveUp(i int) {
	d.selection.choice.piece(i, false)
	for _, p := range d.swarm.peers {
		p.tellDontHave(i)
	}
}
