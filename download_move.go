package torrent

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/shoal-go/torrent/internal/bits"
)

// moving is the Move that is under way.
type moving struct {
	stop        context.CancelCauseFunc // nil if there is none; guarded by the download's mutex
	done, total atomic.Int64            // bytes to copy
}

// Move moves the files that the download has in its directory, and what lies beside them, to dir, which is made if it is
// not there, and returns once they are there. It renames, or copies where dir is on another file system; Stats.Moved says how
// far that is. Meanwhile the download goes on, and so do its readers. Files, slices and readers that were handed out stay
// valid.
//
// All of the content is moved, or none: after an error everything is as it was, and after a kill or a loss of power all of it
// is in the old directory or in dir, where Start finds it. Nothing that other programs have in dir is overwritten: it
// is an error that matches fs.ErrExist if a file is in the way, and ErrInUse if another download is. What is theirs in
// the old directory stays there. Move waits for the check at the start, for Recheck and for another Move. It ends early
// with ctx or the download. A download that was not closed can be moved after its end, too. Content that is in memory, or in a Storage
// of the caller's own, cannot be moved: errors.ErrUnsupported.
func (d *Download) Move(ctx context.Context, dir string) error {
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err := d.move(inner, cancel, dir)
	if err == nil {
		d.log.Info("moved", "dir", dir)
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
		// Not by its completion: what ends then goes on with the content where it is put.
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
	d.mu.Lock()
	d.moving.stop = cancel
	if d.life.resting || d.life.closing {
		cancel(ErrClosed)
	}
	d.mu.Unlock()
	err := d.store.Move(ctx, dir, d.claims, func(done, total int64) {
		d.moving.done.Store(done)
		d.moving.total.Store(total)
	})
	d.mu.Lock()
	d.moving.stop = nil
	d.mu.Unlock()
	d.moving.done.Store(0)
	d.moving.total.Store(0)
	return err
}

// stopMoving ends a Move, and all to come: the download is being closed.
func (d *Download) stopMoving() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.life.closing = true
	if d.moving.stop != nil {
		d.moving.stop(ErrClosed)
	}
}

// claims is what a sidecar may claim now.
func (d *Download) claims() (have bits.Set, partial map[int]bits.Set) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.picker.Verified().Clone(), d.partial()
}
