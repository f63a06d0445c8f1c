package torrent

import (
	"context"
	"errors"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
)

// A disk may fail to read for a while, because a network share is gone or a cable loose. What it holds is still there afterwards. So
// pieces that could not be read, and of which nothing has come from peers since, are tried again.
const (
	firstReread  = 10 * time.Second // after the failure; the pauses double
	lastReread   = 10 * time.Minute // the longest pause
	rereadsAhead = 4                // pieces that are tried first: the others only if one of these can be read
)

// unread says when pieces that could not be read are tried again. The download's mutex guards it.
type unread struct {
	due    time.Time // zero if there are none, or while they are tried
	pause  time.Duration
	trying bool
}

// add has pieces tried again that could not be read now.
func (u *unread) add(now time.Time) {
	if u.due.IsZero() && !u.trying {
		u.pause = firstReread
		u.due = now.Add(u.pause)
	}
}

// readAgain tries pieces again that could not be read, if that is due. The caller holds d.mu.
func (d *Download) readAgain(now time.Time) {
	u := &d.disk.unread
	if u.due.IsZero() || now.Before(u.due) {
		return
	}
	u.due, u.trying = time.Time{}, true
	d.life.tasks.Go(func() {
		found := d.hashUnread(d.life.ctx, rereadsAhead)
		if found > 0 {
			found += d.hashUnread(d.life.ctx, d.t.NumPieces())
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		u.trying = false
		if d.unreadPieces(1).Count() == 0 {
			return
		}
		if u.pause = min(2*u.pause, lastReread); found > 0 {
			u.pause = firstReread
		}
		u.due = time.Now().Add(u.pause)
		d.signal()
	})
}

// unreadPieces returns the pieces that could not be read and of which storage holds nothing that came since, or any of them if they are
// more than most. The caller holds d.mu.
func (d *Download) unreadPieces(most int) (which bits.Set) {
	which = bits.New(d.t.NumPieces())
	n := 0
	for i := range d.disk.unreadable { // in another order each time
		if n == most {
			break
		}
		if d.untouched(i) {
			which.Add(i)
			n++
		}
	}
	return which
}

// hashUnread hashes pieces that could not be read, any of them if they are more than most, and returns how many are right.
func (d *Download) hashUnread(ctx context.Context, most int) (found int) {
	if d.life.awaitTurn(ctx) != nil {
		return 0
	}
	defer d.life.giveBack()
	d.mu.Lock()
	which := d.unreadPieces(most)
	d.mu.Unlock()
	for i := range which.All() {
		// Where the directory was mounted again, the store has to accept what may have been lost.
		if ctx.Err() == nil && errors.Is(d.store.Changed(i), storage.ErrChanged) {
			d.doubt(i)
		}
	}
	d.mu.Lock()
	d.disk.unsure = bits.New(d.t.NumPieces())
	d.mu.Unlock()
	d.verify(ctx, d.t.content(), which, func(i int, ok bool) {
		if ok { // if not, it stays as it is: a peer may be sending it
			found++
			d.hashedAgain(i, true)
		}
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.disk.unsure = bits.Set{}
	return found
}

// insist is patient, and repeats a write of a piece that could once be read, until the disk takes it: one that is away for a while ends no
// seed. Few pieces can wait for that, since their blocks stay in memory.
func (d *Download) insist(write func() error) error {
	for wait := firstReread; ; wait = min(2*wait, lastReread) {
		err := d.patient(write)
		if err == nil || !d.isAway(err) || !pause(wait, d.life.ctx.Done()) {
			return err
		}
	}
}

// isAway reports whether the disk of a seed can, as it seems, be neither read nor written for a while.
func (d *Download) isAway(err error) bool {
	if d.o.Storage != nil || errors.Is(err, storage.ErrChanged) || errors.Is(err, ErrClosed) || storage.Unwritten(err) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.disk.wasWhole || d.ended() {
		return false
	}
	d.storageFailed(err)
	return true
}
