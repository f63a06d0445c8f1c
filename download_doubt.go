package torrent

import (
	"errors"
	"fmt"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
)

// doubts are the pieces in doubt that wait to be hashed. One goroutine hashes them: each time it takes all that wait.
type doubts struct {
	waiting bits.Set
	hashed  chan struct{} // closed once the waiting pieces are hashed; nil if none wait
	running bool          // the goroutine runs
}

// warnEvery is how often the log says that files cannot be examined: each block that a peer requests may show it.
const warnEvery = time.Minute

// recheck puts a piece in doubt, because storage failed or a file has changed, until it is hashed again. If files of the piece
// have changed, their other pieces are hashed again as well. recheck returns false if no hashing follows: the download has ended, or
// a file could not be examined. To hash what can be read would say nothing about that, and to do so at each look would never end.
func (d *Download) recheck(piece int, why error) (follows bool) {
	now := time.Now()
	unexamined := errors.Is(why, storage.ErrUnexamined)
	d.mu.Lock()
	if d.ended() { // what ended it stays the last error
		d.mu.Unlock()
		return false
	}
	d.storageFailed(why)
	quiet := unexamined && now.Sub(d.disk.warned) < warnEvery
	if unexamined && !quiet {
		d.disk.warned = now
	}
	had := d.picker.Verified().Has(piece)
	again := d.unreadLately(piece)
	d.mu.Unlock()
	if !quiet {
		d.log.Warn("storage", "piece", piece, "err", why)
	}
	switch {
	case unexamined:
		return false
	case !had:
		return true // it is being rechecked already
	case again && !errors.Is(why, storage.ErrChanged):
		d.fail(fmt.Errorf("read piece %d, which was fetched and written again: %w", piece, why))
		return false
	}
	d.doubt(piece)
	return true
}

// doubt puts pieces in doubt and has them hashed again, with all pieces of those of their files that have changed. Until then the
// download does not have them. It does not wait for the hashing, and returns a channel that is closed when that is done.
//
// No piece of a changed file is handed out as verified: all of them are in doubt before the store accepts the file as it is now.
// They are put in doubt again afterwards, because one may have been hashed before the store accepted the file.
func (d *Download) doubt(pieces ...int) (hashed <-chan struct{}) {
	d.mu.Lock()
	d.disk.rechecks++
	d.mu.Unlock()
	which := bits.New(d.t.NumPieces())
	for _, piece := range pieces {
		which.Add(piece)
	}
	d.distrust(which)
	// No sidecar claims what was verified before for a file as the store accepts it.
	d.disk.sidecar.Lock()
	defer d.disk.sidecar.Unlock()
	for _, piece := range pieces {
		for !d.ended() { // Close does not wait for thousands of files
			changed, err := d.store.Refresh(piece, which)
			if err != nil {
				break
			}
			if changed.RemoveAll(&which); changed.Count() == 0 {
				break
			}
			d.distrust(changed)
			which.AddAll(&changed)
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

// putInDoubt puts those of the pieces in doubt that are verified, and returns those that are in doubt now. The caller holds d.mu.
func (d *Download) putInDoubt(which bits.Set) (doubted bits.Set) {
	doubted = bits.New(d.t.NumPieces())
	if d.disk.unsure.Len() > 0 {
		d.disk.unsure.AddAll(&which)
	}
	for i := range which.All() {
		if a := d.assembling.hashing[int32(i)]; a != nil {
			a.doubted = true
		} else if a := d.assembling.pieces[int32(i)]; a != nil && a.direct {
			// Blocks of a started piece that are on storage may be wrong as well. The peers that sent them are not to blame.
			a.doubted = d.picker.Started(i).Left == 0
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

// hashSoon has pieces in doubt hashed, and returns a channel that is closed when they are. The caller holds d.mu.
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
	q.waiting.AddAll(&which)
	if !q.running {
		q.running = true
		d.disk.rechecks++
		d.life.tasks.Go(d.hashDoubted)
	}
	return q.hashed
}

// hasAll reports whether all pieces from first up to but not including end are verified, and none is in doubt.
func (d *Download) hasAll(first, end int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.haveAll(first, end)
}

// haveAll is hasAll for a caller that holds d.mu.
func (d *Download) haveAll(first, end int) bool {
	have := d.picker.Verified()
	for !have.Full() && first < end {
		if !have.Has(first) {
			return false
		}
		first++
	}
	return true
}

// lookAt returns how often a piece of a file became verified, or no longer was, and whether all pieces from first up to but not including
// end are.
func (d *Download) lookAt(file, first, end int) (changes int, verified bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return int(d.selection.choice.changes[file]), d.haveAll(first, end)
}

// hashDoubted hashes the waiting pieces until none wait.
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

// hashAgain hashes pieces that are in doubt. A piece that cannot be read is fetched and written again, which repairs a bad sector
// or ends the download with an error.
func (d *Download) hashAgain(which bits.Set) {
	err := d.verify(d.life.ctx, d.t.content(), which, func(i int, ok bool) {
		now := time.Now()
		again := func() bool { // the piece was put in doubt again meanwhile
			q := &d.disk.doubts
			return q.hashed != nil && q.waiting.Has(i)
		}
		d.mu.Lock()
		tell := ok && d.o.Storage == nil && !again() // the store has accepted its files as they are
		d.mu.Unlock()
		var err error
		if tell {
			err = d.storeVerified(i)
		}
		d.mu.Lock()
		defer d.unlock(now)
		if again() {
			return
		}
		d.countChecked(i)
		switch {
		case !ok || errors.Is(err, storage.ErrChanged):
			d.lost(i, now)
		case err != nil:
			d.failStorage(err)
		default:
			d.foundOnDisk(i)
		}
	})
	if err != nil {
		d.endByStorage(fmt.Errorf("check again: %w", err))
	}
}

// giveUp tells all peers that the download no longer has a piece, which is in doubt. The caller holds d.mu.
func (d *Download) giveUp(i int) {
	d.selection.choice.piece(i, false)
	for _, p := range d.swarm.peers {
		p.tellDontHave(i)
	}
}
