package torrent

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/shoal-go/torrent/internal/bits"
)

// moving is the Move that is under way.
type moving struct {
	stop        context.CancelCauseFunc // nil if there is none; guarded by the download's mutex, like dir
	dir         string                  // where the last Move led to, or empty
	done, total atomic.Int64            // bytes to copy
}

// Move moves the files of the download, and the hidden files beside them, to dir, and returns once they are there. It makes
// dir if it does not exist. It renames the files, or copies them if dir is on another file system; Stats.Moved counts the
// bytes copied. Meanwhile the download and its readers continue. Files, slices and readers that were returned before stay
// valid.
//
// All of the content is moved, or none: after an error everything is as it was, and after a kill or a loss of power all of it is in
// the old directory or in dir, where Start finds it. Move overwrites no file in dir: the error matches fs.ErrExist if another file
// is in the way, and ErrInUse if another download is. If dir is where the files are, by whatever path or view, Move does nothing; if only
// some of them are there, as where dir is one branch of a union of directories that holds the files, it fails. Files of other programs in the old directory stay there, and so do files that
// another program changes while they are copied. Move waits for the check at the start, for Recheck and for another Move. It returns
// early with an error if ctx or the download ends; if a disk hangs, a few seconds later, and everything is as it was, or moved, only once
// the disk answers. A download that has ended but was not closed can be moved, too, unless a later download of its client goes on with
// its files: the error matches ErrInUse. Content in memory, or in a Storage of the caller's own, cannot be moved: the error matches
// errors.ErrUnsupported.
func (d *Download) Move(ctx context.Context, dir string) error {
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err := inTime(inner, func() error {
		if inner.Err() != nil {
			return context.Cause(inner) // before anything is made in dir
		}
		err := d.move(inner, cancel, dir)
		if err == nil {
			d.log.Info("moved", "dir", dir)
		}
		return err
	})
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = contextError(ctx)
	}
	return fmt.Errorf("move %s to %s: %w", d.t.name, dir, err)
}

func (d *Download) move(ctx context.Context, cancel context.CancelCauseFunc, dir string) error {
	d.mu.Lock()
	runs := !d.ended()
	if runs {
		d.life.tasks.Add(1)
		defer d.life.tasks.Done()
	}
	d.mu.Unlock()
	if runs {
		// Completion does not stop a Move: the result of the download uses the content in its new place.
		defer context.AfterFunc(d.life.ctx, func() {
			if context.Cause(d.life.ctx) != errDone {
				cancel(ErrClosed)
			}
		})()
		defer context.AfterFunc(d.life.parent, func() { cancel(ErrClosed) })()
		if err := d.life.awaitTurn(ctx); err != nil {
			return err
		}
		defer d.life.giveBack()
	} else if !d.isGone() {
		select {
		case <-d.life.gone:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if !runs && d.isContinued() {
		return fmt.Errorf("%w: a later download of the client goes on with its files", ErrInUse)
	}
	d.mu.Lock()
	d.moving.stop = cancel
	if d.life.closing {
		cancel(ErrClosed)
	}
	d.mu.Unlock()
	err := d.store.Move(ctx, dir, d.claims, func(done, total int64) {
		d.moving.done.Store(done)
		d.moving.total.Store(total)
	})
	d.calls.Moved(d.store.Place())
	d.mu.Lock()
	d.moving.stop = nil
	if err == nil {
		d.moving.dir = dir
	}
	d.mu.Unlock()
	d.moving.done.Store(0)
	d.moving.total.Store(0)
	return err
}

// isContinued reports whether a running download of the client has the same content in the same directory, which it may only read.
func (d *Download) isContinued() bool {
	other, ok := d.client.Download(d.t.infoHash)
	if !ok || other == d || other.dir() == "" {
		return false
	}
	here, err := os.Stat(d.dir())
	if err != nil {
		return false
	}
	there, err := os.Stat(other.dir())
	return err == nil && os.SameFile(here, there)
}

// dir returns the directory that the files are in; empty if there is none.
func (d *Download) dir() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return cmp.Or(d.moving.dir, d.o.Dir)
}

// stopMoving ends a running Move and refuses later ones, because the download is being closed.
func (d *Download) stopMoving() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.life.closing = true
	if d.moving.stop != nil {
		d.moving.stop(ErrClosed)
	}
}

// claims returns the pieces and blocks that a sidecar may claim now.
func (d *Download) claims() (have bits.Set, partial map[int]bits.Set) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.picker.Verified().Clone(), d.partial()
}
