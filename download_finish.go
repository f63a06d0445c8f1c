package torrent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/ratelimit"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/tracker"
)

// setResult sets the result of the download: complete, or the error why it never will be. The first call decides for good
// whether the download failed. Later calls are about files that were chosen later.
func (d *Download) setResult(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isDone() {
		d.life.unfinished = err
	} else {
		d.life.result = err
		close(d.life.done)
	}
	if !d.isSettled() {
		close(d.life.settled)
	}
	d.broadcast()
}

// isSettled reports whether Wait has something to return. The caller holds d.mu.
func (d *Download) isSettled() bool {
	select {
	case <-d.life.settled:
		return true
	default:
		return false
	}
}

// finish ends what still runs of the download.
func (d *Download) finish() {
	d.closePeers()
	d.client.remove(d)
	d.life.tasks.Wait()
	d.mu.Lock()
	if h := d.assembling.holder; h != nil {
		h.Leave()
	}
	d.mu.Unlock()
	if cause := context.Cause(d.life.ctx); d.life.parent.Err() == nil && cause != errDone && cause != ErrClosed {
		d.log.Warn("failed", "err", cause)
	}
	if !d.isDone() {
		d.saveAtEnd()
		d.files.closeStore() // Close reports its error
		d.setResult(d.failure())
	} else {
		d.mu.Lock()
		settled, due := d.isSettled(), d.disk.resumable
		d.mu.Unlock()
		if due {
			d.save()
		}
		if d.hasFailed() { // storage was too slow to be waited for
			d.files.closeStore()
		} else if err := d.store.Release(); err != nil {
			d.log.Warn("the directory stays locked", "err", err)
		}
		if !settled {
			d.setResult(d.failure())
		}
	}
	d.life.farewell.Wait()
	d.mu.Lock()
	for i := range d.assembling.pieces {
		d.dropAssembly(i)
	}
	d.traffic.gate.Release(time.Now())
	d.forgetStrangers()
	d.mu.Unlock()
	d.emitState()
	d.client.retire(d)
	if d.ownClient() {
		d.leaveClient()
	}
}

// forgetStrangers forgets what is known of peers, because the caller may keep a download that has ended, or its files. The caller
// holds d.mu.
func (d *Download) forgetStrangers() {
	d.discovery.candidates.Bound(0)
	d.swarm.places, d.swarm.work = peerlist.Places{}, ratelimit.Accounts[netip.Prefix]{}
	d.uploading.debts, d.uploading.fastSets = nil, nil
}

// hurry runs when the caller's context has ended. A moment later it interrupts storage, and sets the result even if
// something has not ended yet.
func (d *Download) hurry() {
	timer := time.NewTimer(stopAtOnce)
	defer timer.Stop()
	select {
	case <-timer.C:
		d.store.Stop()
		d.setResult(d.failure())
	case <-d.life.gone:
		return
	}
	timer.Reset(unanswered)
	select {
	case <-timer.C:
		d.leaveClient()
	case <-d.life.gone:
	}
}

// leaveClient ends the use of the client, which is closed if it is the download's own, once nothing of the download runs but what
// waits for storage that does not answer.
func (d *Download) leaveClient() {
	d.life.leaving.Do(func() {
		if d.ownClient() {
			d.client.Close()
		} else {
			d.client.tasks.Done()
		}
	})
}

// isDone reports whether the download was complete once, or has failed.
func (d *Download) isDone() bool {
	select {
	case <-d.life.done:
		return true
	default:
		return false
	}
}

// hasFailed reports whether the download failed before it was complete for the first time.
func (d *Download) hasFailed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.life.result != nil
}

// saveAtEnd writes the blocks of unfinished pieces in memory to storage, and the sidecar. If the context was cancelled it
// does not wait for a slow disk. Then the sidecar from before stays valid, and what it does not claim is hashed by the
// next run.
func (d *Download) saveAtEnd() {
	d.mu.Lock()
	var spilled []batch
	for i := range d.assembling.pieces {
		if a, _ := d.assembly(i); a != nil && !a.direct {
			spilled = append(spilled, d.spill(i, a))
		}
	}
	d.mu.Unlock()
	saved := make(chan struct{})
	go func() {
		defer close(saved)
		for _, r := range spilled {
			d.write(r)
		}
		d.save()
	}()
	if d.life.parent.Err() == nil {
		<-saved
		return
	}
	select {
	case <-saved:
	case <-time.After(stopAtOnce):
	}
}

// save writes a sidecar that claims what is verified. At the end, one that is to be kept is written of content that is
// complete, too, as it is after content that was complete is found to be changed and right.
func (d *Download) save() {
	d.disk.sidecar.Lock()
	defer d.disk.sidecar.Unlock()
	d.mu.Lock()
	if d.progress.checking {
		d.mu.Unlock()
		return // the sidecar of the last run claims more
	}
	have := d.picker.Verified().Clone()
	partial := d.partial()
	d.disk.resumable = false
	keep := d.o.KeepResume && (d.progress.complete || d.ended())
	d.mu.Unlock()
	write := d.store.SaveResume
	if keep {
		write = d.store.Keep
	}
	err := write(have, partial)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.disk.saving = false
	if err != nil {
		d.failStorage(fmt.Errorf("save what was verified: %w", err))
	}
}

// failure returns the error for a download that ended before it was complete.
func (d *Download) failure() error {
	cause := context.Cause(d.life.ctx)
	if d.life.parent.Err() == nil {
		return cause // of the download itself: Close, a full disk, a stall
	}
	d.mu.Lock()
	progress := fmt.Sprintf("%d of %d bytes verified, %d peers tried", d.selection.choice.verified, d.selection.choice.wanted, d.discovery.tried)
	last := d.discovery.lastPeerError
	for _, w := range d.webSeeds {
		if err := w.health.Err(); err != nil {
			progress += ", " + err.Error()
			break
		}
	}
	d.mu.Unlock()
	return fmt.Errorf("download %s: %w", d.t.name, inVain(contextError(d.life.parent), d.discovery.trackers, progress, last))
}

// inVain returns err, which ended a download or a search for metadata, joined with the last errors of the trackers. Its
// text also says how far the search came, and the error of the last peer.
func inVain(err error, t *tracker.Announcer, progress string, lastPeer error) error {
	words := trackerErrors(t.Errors())
	words = words[:min(len(words), maxTrackersSaid)]
	if lastPeer != nil {
		progress += ", the last: " + lastPeer.Error()
	}
	return fmt.Errorf("%w (%s)", errors.Join(append([]error{err}, words...)...), progress)
}

// contextError returns the error of a context that ended, and its cause if that is another error.
func contextError(ctx context.Context) error {
	if cause := context.Cause(ctx); !errors.Is(cause, ctx.Err()) {
		return fmt.Errorf("%w: %w", ctx.Err(), cause)
	} else {
		return cause
	}
}

// partial returns, for each piece that is not complete, the set of its blocks on storage. The caller holds d.mu.
func (d *Download) partial() map[int]bits.Set {
	partial := make(map[int]bits.Set)
	for i := range d.assembling.pieces {
		if a, p := d.assembly(i); a != nil && a.direct && a.writing == 0 && !p.Parole {
			partial[int(i)] = d.picker.Arrived(int(i))
		}
	}
	return partial
}

// becomeComplete completes the download if all wanted pieces are verified and it is not complete yet. If the download ends meanwhile, and
// storage hangs, a task of the download goes on with that.
func (d *Download) becomeComplete() {
	if !d.mayComplete() {
		return
	}
	d.life.tasks.Add(1)
	inTime(d.life.ctx, func() error {
		defer d.life.tasks.Done()
		d.complete()
		return nil
	})
}

func (d *Download) complete() {
	// A Select happens before all of this, and more may be wanted, or after all of it, and is too late without Seed.
	d.selection.choosing.Lock()
	defer d.selection.choosing.Unlock()
	d.disk.sidecar.Lock()
	defer d.disk.sidecar.Unlock()
	have, partial, ok := d.secureContent()
	if !ok {
		return
	}
	d.wantNothing()
	d.mu.Lock()
	d.disk.resumable = false
	d.mu.Unlock()
	finish := d.store.Finish
	if d.o.KeepResume {
		finish = func() error { return d.store.Keep(have, partial) }
	}
	if err := finish(); err != nil {
		d.endByStorage(fmt.Errorf("store what was downloaded: %w", err))
		return
	}
	if d.o.Seed && d.completedHere() {
		d.discovery.completed()
	}
	d.log.Info("complete")
	if !d.o.Seed {
		d.client.remove(d) // the same torrent may be started again at once
		defer d.life.stop(errDone)
	}
	d.setResult(nil)
}

// mayComplete reports whether all wanted pieces are verified and the download is not complete yet.
func (d *Download) mayComplete() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.lacking() && d.life.ctx.Err() == nil && d.selection.choice.chosen > 0 && !d.progress.complete && d.disk.rechecks == 0
}

// secureContent checks that no other program has changed the files, and saves a sidecar for a later choice of more
// files. It reports whether the download is complete, and which pieces and blocks are there. The caller holds
// d.selection.choosing and d.disk.sidecar.
func (d *Download) secureContent() (have bits.Set, partial map[int]bits.Set, ok bool) {
	d.mu.Lock()
	if d.lacking() || d.selection.choice.chosen == 0 || d.disk.rechecks > 0 {
		d.mu.Unlock()
		return have, nil, false
	}
	have, partial = d.picker.Verified().Clone(), d.partial()
	d.mu.Unlock()
	if piece, err := d.store.AnyChanged(d.life.ctx, have); errors.Is(err, storage.ErrUnexamined) {
		d.endByStorage(fmt.Errorf("look for changes: %w", err))
		return have, nil, false
	} else if err != nil && piece < 0 {
		d.endByStorage(fmt.Errorf("store what was downloaded: %w", err))
		return have, nil, false
	} else if piece >= 0 {
		d.disk.sidecar.Unlock()
		defer d.disk.sidecar.Lock()
		d.recheck(piece, err) // another program wrote to the files: what it changed is fetched again
		d.doubtChanged()      // and it may have written to many
		d.signal()
		return have, nil, false
	}
	if d.o.KeepResume { // then it is saved, too
		return have, partial, true
	}
	if err := d.store.SaveResume(have, partial); err != nil {
		d.endByStorage(fmt.Errorf("save what was verified: %w", err))
		return have, nil, false
	}
	return have, partial, true
}

// wantNothing records that the download is complete, and tells the peers.
func (d *Download) wantNothing() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.progress.complete, d.disk.wasWhole = true, false
	d.traffic.gate.Release(time.Now())
	d.files.choose(d.selection.choice.files())
	for _, w := range d.webSeeds {
		for _, s := range w.streams {
			s.signal() // it ends, if nothing is wanted
		}
	}
	for _, p := range d.swarm.peers {
		if d.sated() && (p.isSeed() || p.ext.uploadOnly) {
			p.stopLocked(errBothSeeds)
		} else if p.extended && d.o.Seed {
			p.sendExtHandshake() // we are upload only (BEP 21)
		}
	}
}

var errDone = errors.New("complete")

// completedHere reports whether all of the content is here, and this download fetched some of it.
func (d *Download) completedHere() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.picker.Verified().Full() && d.progress.fetched
}
