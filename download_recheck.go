package torrent

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
)

// diskState is the errors of storage, and what the sidecar does not say yet.
type diskState struct {
	errors     int
	lastError  error
	unreadable map[int]struct{} // pieces that storage could not read back once
	rechecks   int              // under way, of pieces in doubt
	resumable  bool             // something was verified since the sidecar was last written
	saving     bool
	nextSave   time.Time
}

// recheck drops a piece because storage failed or holds something else, until it was hashed again. Other pieces in the
// same files are rechecked with it.
func (d *Download) recheck(piece int, why error) {
	d.log.Warn("storage", "piece", piece, "err", why)
	now := time.Now()
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
	which, err := d.store.Refresh(piece)
	if err != nil {
		which = bits.New(d.t.NumPieces())
		which.Add(piece)
	}
	recheck := bits.New(d.t.NumPieces())
	d.mu.Lock()
	defer d.unlock(now)
	for i := range which.All() {
		if a := d.assembling.pieces[int32(i)]; a != nil && a.direct {
			// Blocks on storage of a started piece may be wrong, too. The peers that sent them are not to blame.
			d.cancelAll(d.picker.Abandon(i))
			d.pending.freed = true
		}
		if d.picker.Doubt(i) {
			recheck.Add(i)
			d.selection.choice.piece(i, false)
			for _, p := range d.swarm.peers {
				p.tellDontHave(i)
			}
		}
	}
	if recheck.Count() > 0 && !d.ended() {
		d.disk.rechecks++
		d.life.tasks.Go(func() { d.hashAgain(recheck) })
	}
}

// hashAgain hashes pieces in doubt. One that cannot be read is fetched and written again: that repairs a bad sector, or
// fails and says why.
func (d *Download) hashAgain(which bits.Set) {
	r := recheckReader{d.store, func(off int64, err error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.storageFailed(err)
		if d.disk.unreadable == nil {
			d.disk.unreadable = make(map[int]struct{})
		}
		d.disk.unreadable[d.t.layout.PieceAt(off)] = struct{}{}
	}}
	err := storage.Verify(d.life.ctx, d.t.content(), r, which, func(i int, ok bool) {
		now := time.Now()
		d.mu.Lock()
		defer d.unlock(now)
		if ok {
			d.gotPiece(i, nil)
			for _, p := range d.swarm.peers {
				p.tellHave(i)
			}
			return
		}
		d.picker.Lost(i)
		d.becomeIncomplete(now)
		for _, p := range d.swarm.peers {
			d.updateInterest(p)
		}
		d.pending.freed = true
		d.signal()
	})
	if err != nil && !d.ended() {
		d.fail(fmt.Errorf("check again: %w", err))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.disk.rechecks--
	d.signal()
}

// recheckReader reports errors to failed, and reads the bytes as missing.
type recheckReader struct {
	io.ReaderAt
	failed func(off int64, err error)
}

func (r recheckReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.ReaderAt.ReadAt(p, off)
	if err == nil || n == len(p) || storage.Unwritten(err) || errors.Is(err, ErrClosed) {
		return n, err
	}
	r.failed(off+int64(n), err)
	return n, io.ErrUnexpectedEOF
}
