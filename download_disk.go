package torrent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/picker"
	"github.com/shoal-go/torrent/internal/storage"
)

// diskState records the errors of storage, rechecks, and whether the sidecar is out of date.
type diskState struct {
	errors     int
	lastError  error
	unreadable map[int]time.Time // when storage could not read a piece back
	unread     unread            // those of these that no peer has sent since
	wasWhole   bool              // all was here when a piece could not be read
	warned     time.Time         // when the log said last that a file cannot be examined, or a piece not be read
	rechecks   int               // under way; nothing becomes complete meanwhile
	doubts     doubts
	unsure     bits.Set // pieces that came into doubt since Recheck began to hash; empty if none runs
	checking   bool     // in one that the user asked for
	resumable  bool     // something was verified since the sidecar was last written
	saving     bool
	nextSave   time.Time

	// sidecar is held while the sidecar is written, from when it is decided what it claims, and while the store accepts changed
	// files. It is taken before mu.
	sidecar sync.Mutex
}

// unreadableFor is how long a failure to read a piece counts. The piece is fetched and written again; if it cannot be read after that
// within this time, writing it again did not help.
const unreadableFor = time.Hour

// failedToRead records that storage could not read a piece back.
func (d *Download) failedToRead(piece int, err error) {
	now := time.Now()
	d.mu.Lock()
	defer d.unlock(now)
	d.storageFailed(err)
	if d.disk.unreadable == nil {
		d.disk.unreadable = make(map[int]time.Time)
	}
	d.disk.unreadable[piece] = now
	d.disk.wasWhole = d.disk.wasWhole || d.progress.complete
	d.disk.unread.add(now)
	if now.Sub(d.disk.warned) >= warnEvery {
		d.disk.warned = now
		d.logLater(func() { d.log.Warn("cannot be read", "piece", piece, "err", err) })
	}
	d.signal()
}

// unreadLately reports whether storage failed to read a piece not long ago. The caller holds d.mu.
func (d *Download) unreadLately(piece int) bool {
	before, ok := d.disk.unreadable[piece]
	return ok && time.Since(before) < unreadableFor
}

// isLost reports whether a piece that could not be read back to be hashed is to be fetched and written again, which repairs a bad sector.
func (d *Download) isLost(piece int, a *assembly, err error) bool {
	if d.o.Storage != nil || storage.Unwritten(err) || errors.Is(err, ErrClosed) {
		return false
	}
	d.mu.Lock()
	again := d.unreadLately(piece)
	a.doubted = a.doubted || !again
	d.mu.Unlock()
	if !again {
		d.failedToRead(piece, err)
	}
	return !again
}

// verify hashes pieces that storage has, and calls each with each of them and whether it has its hash. A piece that cannot be read has not.
func (d *Download) verify(ctx context.Context, content storage.Content, which bits.Set, each func(piece int, ok bool)) error {
	return d.client.verifiers.Verify(ctx, d.store.Place(), content, d.store, which, each, d.failedToRead)
}

// foundOnDisk records that a piece was hashed and is right. The caller holds d.mu.
func (d *Download) foundOnDisk(i int) {
	d.disk.resumable = true
	d.gotPiece(i, nil)
	for _, p := range d.swarm.peers {
		p.tellHave(i)
	}
}

// lost marks a piece that was in doubt as missing, so that it is fetched again. The caller holds d.mu.
func (d *Download) lost(i int, now time.Time) {
	d.picker.Lost(i)
	d.disk.resumable = true
	d.becomeIncomplete(now)
	for _, p := range d.swarm.peers {
		d.updateInterest(p)
	}
	d.pending.freed = true
	d.signal()
}

// countChecked counts a piece for Stats.Checked. The caller holds d.mu.
func (d *Download) countChecked(i int) {
	if d.disk.checking {
		d.progress.checked += d.t.layout.PieceSize(i)
	}
}

// Recheck hashes the content in storage again, and returns once that is done. Meanwhile the download continues: verified pieces
// are shared until they prove wrong, and State is Checking, or Paused. Pieces that are wrong are fetched again, and pieces that
// another program has written since are used. Wrong pieces are not an error. One Recheck runs at a time, after the check that
// Start makes; other calls wait for it. When ctx ends, Recheck returns its error; when the download ends, Recheck returns
// ErrClosed; both a few seconds later if the disk hangs.
func (d *Download) Recheck(ctx context.Context) error {
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(d.life.ctx, func() { cancel(ErrClosed) })()
	err := inTime(inner, func() error { return d.recheckAll(inner) })
	switch {
	case err == nil:
		return nil
	case d.ended():
		return ErrClosed
	case ctx.Err() != nil:
		err = contextError(ctx)
	}
	return fmt.Errorf("check %s again: %w", d.t.name, err)
}

func (d *Download) recheckAll(ctx context.Context) error {
	if err := d.life.awaitTurn(ctx); err != nil {
		return err
	}
	defer d.life.giveBack()
	d.mu.Lock()
	if d.ended() {
		d.mu.Unlock()
		return ErrClosed
	}
	d.life.tasks.Add(1)
	defer d.life.tasks.Done()
	d.disk.rechecks++
	d.disk.checking = true
	d.progress.checked = 0
	d.mu.Unlock()
	d.signal()
	err := d.hashAll(ctx)
	d.mu.Lock()
	d.disk.rechecks--
	d.disk.checking, d.disk.unsure = false, bits.Set{}
	due := d.disk.resumable
	d.mu.Unlock()
	if due && err == nil {
		d.save() // the sidecar claims nothing that is lost
	}
	d.signal()
	return err
}

// hashAll hashes the verified pieces, and other pieces for which storage holds bytes that peers did not send.
func (d *Download) hashAll(ctx context.Context) error {
	doubted := d.doubtChanged()
	which := d.store.Present(d.life.ctx)
	d.mu.Lock()
	d.disk.unsure = bits.New(d.t.NumPieces())
	for i := range d.t.NumPieces() {
		switch {
		case d.o.Storage == nil && d.t.layout.IsPadding(i): // which is not stored
		case d.picker.Verified().Has(i):
			which.Add(i)
		case which.Has(i) && !d.untouched(i):
			which.Remove(i)
		}
	}
	d.mu.Unlock()
	err := d.verify(ctx, d.t.content(), which, d.hashedAgain)
	select {
	case <-doubted:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return err
}

// doubtChanged doubts the pieces of all files that are not as they were left, and returns what is closed when they are hashed.
func (d *Download) doubtChanged() (hashed <-chan struct{}) {
	var pieces []int
	for i, f := range d.t.layout.Files() {
		if d.ended() {
			break // Close waits for this
		}
		if !f.Pad && f.Length > 0 && errors.Is(d.store.ChangedFile(i), storage.ErrChanged) {
			first, _ := d.t.layout.PiecesOf(i)
			pieces = append(pieces, first)
		}
	}
	if piece, err := d.store.AnyChanged(d.life.ctx, d.Verified().pieces); errors.Is(err, storage.ErrChanged) { // bytes of files that are not chosen
		pieces = append(pieces, piece)
	}
	// Many changed files may begin in the same piece. Each Refresh of it looks at all of them.
	return d.doubt(slices.Compact(pieces)...)
}

// untouched reports whether a piece is not verified, and storage holds nothing of it that peers sent.
// The caller holds d.mu.
func (d *Download) untouched(i int) bool {
	if d.picker.Verified().Has(i) || d.picker.Doubted(i) {
		return false
	}
	a, p := d.assembling.pieces[int32(i)], d.picker.Started(i)
	return (a == nil || !a.direct) && (p == picker.Started{} || p.Left > 0)
}

// hashedAgain records whether Recheck or readAgain found piece i right.
func (d *Download) hashedAgain(i int, ok bool) {
	now := time.Now()
	d.mu.Lock()
	fresh := ok && d.untouched(i)
	d.mu.Unlock()
	var err error
	if fresh {
		err = d.storeVerified(i)
	}
	if errors.Is(err, storage.ErrChanged) {
		fresh, err = false, nil
	}
	d.mu.Lock()
	defer d.unlock(now)
	d.countChecked(i)
	switch {
	case err != nil:
		d.failStorage(err)
	case fresh && d.untouched(i) && !d.disk.unsure.Has(i):
		delete(d.disk.unreadable, i) // it was not written again
		d.foundOnDisk(i)
		if !d.lacking() {
			d.signal()
		}
	case !ok && d.picker.Doubt(i):
		d.giveUp(i)
		d.lost(i, now)
	}
}

// scarcity limits the connections after the process ran out of file handles. The download's mutex guards it.
type scarcity struct {
	most int       // connections; 0 is no bound of this kind
	grow time.Time // when there may be more again
}

const growEvery = 10 * time.Second

var errScarce = errors.New("makes room for a file: out of handles")

// giveWay closes connections, so that there are handles for files, and records why.
func (d *Download) giveWay(why error) {
	now := time.Now()
	d.mu.Lock()
	defer d.unlock(now)
	d.storageFailed(why)
	n := max(1, d.swarm.live/4)
	d.scarcity = scarcity{most: max(1, d.swarm.live-n), grow: now.Add(growEvery)}
	d.drop(errScarce, peerlist.WorstOfAll(now, d.worths(now), n)...)
}

// easeScarcity raises the limit of connections again, after some time without a shortage. The caller holds d.mu.
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

// maxPeers is how many connections there may be now. The caller holds d.mu.
func (d *Download) maxPeers() int {
	if most := d.o.maxPeers(); d.scarcity.most == 0 || d.scarcity.most > most {
		return most
	}
	return d.scarcity.most
}

// patient repeats do, a call of storage, until there is a file handle for it, or the download ends. Connections make room meanwhile.
// Each time it first waits until that takes no threads from downloads whose storage is elsewhere, which may answer when this does not.
func (d *Download) patient(do func() error) error {
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		turn, _ := d.calls.Take(nil)
		err := do()
		turn.Give()
		if !storage.Exhausted(err) || d.life.ctx == nil || d.ended() {
			return err
		}
		d.giveWay(err)
		if !pause(wait, d.life.ctx.Done()) {
			return err
		}
	}
}

// patientStore is a store that waits for handles instead of failing without one, while the download runs, and for threads. Stop, Place
// and Move take none.
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
	err = s.d.insist(func() (err error) {
		n, err = s.Store.WriteAt(p, off)
		return err
	})
	return n, err
}

func (s patientStore) WriteBlocks(blocks [][]byte, off int64) error {
	return s.d.insist(func() error { return s.Store.WriteBlocks(blocks, off) })
}

func (s patientStore) SetWanted(wanted []bool) error {
	return s.d.patient(func() error { return s.Store.SetWanted(wanted) })
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

func (s patientStore) Refresh(piece int, doubted bits.Set) (which bits.Set, err error) {
	err = s.d.patient(func() (err error) {
		which, err = s.Store.Refresh(piece, doubted)
		return err
	})
	return which, err
}

func (s patientStore) Changed(piece int) error {
	return s.d.patient(func() error { return s.Store.Changed(piece) })
}

func (s patientStore) ChangedAt(off, n int64) error {
	return s.d.patient(func() error { return s.Store.ChangedAt(off, n) })
}

func (s patientStore) AnyChanged(ctx context.Context, have bits.Set) (piece int, err error) {
	err = s.d.patient(func() (err error) {
		piece, err = s.Store.AnyChanged(ctx, have)
		return err
	})
	return piece, err
}

func (s patientStore) Bytes(i int) (b []byte, release func() error, err error) {
	err = s.d.patient(func() (err error) {
		b, release, err = s.Store.Bytes(i)
		return err
	})
	return b, release, err
}

func (s patientStore) PieceVerified(piece int) error {
	return s.d.insist(func() error { return s.Store.PieceVerified(piece) })
}

func (s patientStore) LoadResume() (have bits.Set, partial map[int]bits.Set) {
	s.d.patient(func() error {
		have, partial = s.Store.LoadResume()
		return nil
	})
	return have, partial
}

func (s patientStore) Present(ctx context.Context) (which bits.Set) {
	s.d.patient(func() error {
		which = s.Store.Present(ctx)
		return nil
	})
	return which
}

func (s patientStore) ChangedFile(file int) error {
	return s.d.patient(func() error { return s.Store.ChangedFile(file) })
}

func (s patientStore) Release() error { return s.d.patient(s.Store.Release) }

func (s patientStore) Rest() error { return s.d.patient(s.Store.Rest) }

func (s patientStore) Wake() error { return s.d.patient(s.Store.Wake) }

func (s patientStore) Close() error { return s.d.patient(s.Store.Close) }

func (s patientStore) Sync() error { return s.d.patient(s.Store.Sync) }
