package torrent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/peerlist"
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

// scarcity bounds the connections after the process ran out of handles. The download's mutex guards it.
type scarcity struct {
	most int       // connections; 0 is no bound of this kind
	grow time.Time // when there may be more again
}

const growEvery = 10 * time.Second

var errScarce = errors.New("makes room for a file: out of handles")

// giveWay gives up connections, so that there are handles for files, and records why.
func (d *Download) giveWay(why error) {
	now := time.Now()
	d.mu.Lock()
	defer d.unlock(now)
	d.storageFailed(why)
	n := max(1, d.swarm.live/4)
	d.scarcity = scarcity{most: max(1, d.swarm.live-n), grow: now.Add(growEvery)}
	d.drop(errScarce, peerlist.WorstOfAll(now, d.worths(now), n)...)
}

// easeScarcity lets more connections be made again, after some time without a shortage.
func (d *Download) easeScarcity(now time.Time) {
	if d.scarcity.most == 0 || now.Before(d.scarcity.grow) {
		return
	}
	d.scarcity.most += max(1, d.scarcity.most/8)
	d.scarcity.grow = now.Add(growEvery)
	if d.scarcity.most >= d.o.maxPeers() {
		d.scarcity = scarcity{}
	}
}

// maxPeers is how many connections there may be now.
func (d *Download) maxPeers() int {
	if most := d.o.maxPeers(); d.scarcity.most == 0 || d.scarcity.most > most {
		return most
	}
	return d.scarcity.most
}

// patient does what needs a handle until there is one, or the download ends. Connections give way meanwhile.
func (d *Download) patient(do func() error) error {
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := do()
		if !storage.Exhausted(err) || d.life.ctx == nil || d.ended() {
			return err
		}
		d.giveWay(err)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-d.life.ctx.Done():
			timer.Stop()
			return err
		}
	}
}

// patientStore is a store that waits for handles instead of failing without one, while the download runs.
type patientStore struct {
	storage.Store
	d *Download
}

func (s patientStore) ReadAt(p []byte, off int64) (n int, err error) {
	err = s.d.patient(func() (err error) {
		n, err = s.Store.ReadAt(p, off)
		return err
	})
	return n, err
}

func (s patientStore) WriteAt(p []byte, off int64) (n int, err error) {
	err = s.d.patient(func() (err error) {
		n, err = s.Store.WriteAt(p, off)
		return err
	})
	return n, err
}

func (s patientStore) WriteBlocks(blocks [][]byte, off int64) error {
	return s.d.patient(func() error { return s.Store.WriteBlocks(blocks, off) })
}

func (s patientStore) Settle(ctx context.Context, have bits.Set) error {
	return s.d.patient(func() error { return s.Store.Settle(ctx, have) })
}

func (s patientStore) SaveResume(have bits.Set, partial map[int]bits.Set) error {
	return s.d.patient(func() error { return s.Store.SaveResume(have, partial) })
}

func (s patientStore) Finish() error { return s.d.patient(s.Store.Finish) }

func (s patientStore) Keep(have bits.Set, partial map[int]bits.Set) error {
	return s.d.patient(func() error { return s.Store.Keep(have, partial) })
}

func (s patientStore) Refresh(piece int) (which bits.Set, err error) {
	err = s.d.patient(func() (err error) {
		which, err = s.Store.Refresh(piece)
		return err
	})
	return which, err
}

func (s patientStore) Bytes(i int) (b []byte, release func() error, err error) {
	err = s.d.patient(func() (err error) {
		b, release, err = s.Store.Bytes(i)
		return err
	})
	return b, release, err
}

// PieceVerified tells a storage that wants to know of it.
func (s patientStore) PieceVerified(piece int) error {
	if st, ok := s.Store.(interface{ PieceVerified(int) error }); ok {
		return st.PieceVerified(piece)
	}
	return nil
}
