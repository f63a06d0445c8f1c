package torrent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/choker"
	"github.com/shoal-go/torrent/internal/merkle"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/picker"
	"github.com/shoal-go/torrent/internal/ratelimit"
	"github.com/shoal-go/torrent/internal/storage"
)

// ownClient reports whether the client belongs to this download alone, and is closed with it.
func (d *Download) ownClient() bool { return d.o.Client == nil }

// open does everything that can make Start fail. priority is the choice of files.
func (d *Download) open(priority []Priority) (err error) {
	d.log = d.client.log.With("torrent", d.t.name, "infohash", d.t.infoHash)
	d.identity = d.client.identity(d.t.infoHash)
	d.rng = d.client.newRand()
	d.picker = picker.New(d.t.layout, d.rng.Uint64())
	d.uploading.choker = choker.New(d.rng)
	d.selection.choice = newChoice(d.t)
	d.selection.opened = make([]bool, d.t.layout.NumFiles())
	d.assembling.share = d.client.blockPool.NewShare()
	for k := range d.assembling.writing {
		d.assembling.writing[k] = make(chan struct{}, 1)
	}
	d.assembling.checks = make(chan storage.Check, runtime.GOMAXPROCS(0))
	for range cap(d.assembling.checks) {
		d.assembling.checks <- nil
	}
	d.traffic.gate = ratelimit.NewGate(ratelimit.Join(d.o.DownloadLimit, d.client.DownloadLimit), int(min(blockSize, d.t.layout.PieceLength())))
	d.uploadLimits = ratelimit.Join(d.o.UploadLimit, d.client.UploadLimit)
	for _, l := range d.uploadLimits {
		q := d.client.uploads
		if l != d.client.UploadLimit {
			q = ratelimit.NewQueue(l)
		}
		d.uploadQueues = append(d.uploadQueues, q)
	}
	if err := d.client.add(d); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			d.client.remove(d)
		}
	}()
	if d.store, err = d.openInTime(d.life.parent); err != nil {
		return err
	}
	d.calls = d.client.calls.NewTaker(d.store.Place())
	d.store = patientStore{d.store, d}
	d.files = newDownloaded(d.life.parent, d.t, d.store, d.endSharing, d.lookAt)
	if err = inTime(d.life.parent, func() error {
		err := d.choose(priority)
		if err != nil {
			d.store.Close()
		}
		return err
	}); err != nil {
		if d.life.parent.Err() != nil {
			go d.store.Close() // it may be open yet: the disk may hang
		}
		return err
	}
	d.life.ctx, d.life.stop = context.WithCancelCause(d.life.parent)
	d.discovery = newDiscovery(discoveryConfig{
		client:     d.client,
		hashes:     d.t.infoHashes(),
		upgrade:    true,
		private:    d.t.private,
		tiers:      d.t.trackers,
		byUser:     d.o.Trackers,
		nodes:      d.t.nodes,
		find:       d.o.FindPeers,
		log:        d.log,
		ctx:        d.life.ctx,
		tasks:      &d.life.tasks,
		mu:         &d.mu,
		progress:   d.announceProgress,
		seeds:      d.seeds,
		hungry:     d.hungry,
		dropped:    d.droppedTracker,
		disconnect: d.disconnect,
		take:       d.addPeer,
		changed:    d.signal,
		failed:     d.unreached,
		heard:      d.emitTracker,
	}, d.rng)
	d.webSeeds = d.openWebSeeds()
	d.discovery.found(peerlist.FromUser, "", d.o.Peers...)
	d.discovery.found(peerlist.FromMagnet, "", d.t.peers...)
	if err = d.client.begin(d); err != nil {
		d.life.stop(err)
		d.store.Close()
	}
	return err
}

// openInTime is openStore, but returns once ctx has ended: a disk may be slow, and files many. A store that is opened later is closed.
func (d *Download) openInTime(ctx context.Context) (storage.Store, error) {
	type opened struct {
		storage.Store
		err error
	}
	done := make(chan opened)
	go func() {
		at := storage.UserPlace
		if d.o.Storage == nil {
			at = storage.Place("directory " + d.o.Dir)
		}
		turn, ok := d.client.openings.NewTaker(at).Take(ctx.Done())
		if !ok {
			return
		}
		defer turn.Give()
		st, err := d.openStore()
		select {
		case done <- opened{st, err}:
		case <-ctx.Done():
			if err == nil {
				st.Close()
			}
		}
	}()
	select {
	case o := <-done:
		return o.Store, o.err
	case <-ctx.Done():
		return nil, fmt.Errorf("open storage: %w", context.Cause(ctx))
	}
}

func (d *Download) openStore() (storage.Store, error) {
	switch {
	case d.o.Storage != nil:
		st, err := d.o.Storage(d.t)
		if err == nil && st == nil {
			err = errors.New("Options.Storage returned nil")
		}
		if err != nil {
			return nil, fmt.Errorf("open storage: %w", err)
		}
		return d.t.wrapStorage(st)
	case d.o.Dir != "":
		return d.client.hooks.openFiles(d.t.content(), d.o.Dir, d.log)
	}
	most := d.o.MaxMemory
	if most <= 0 {
		most = defaultMaxMemory
	}
	return storage.NewMemory(d.t.content(), most), nil
}

// examine verifies what storage already holds. It returns false if the download ended meanwhile.
func (d *Download) examine() bool {
	have, partial := d.store.LoadResume()
	todo := d.takeResumed(have)
	if d.t.version != V1 && len(d.t.hashes.Missing()) > 0 {
		if err := d.recogniseFiles(d.t.content(), todo.Has); err != nil {
			d.endByStorage(fmt.Errorf("check what is there: %w", err))
			return false
		}
	}
	if err := d.verifyPresent(todo); err != nil {
		d.endByStorage(fmt.Errorf("check what is there: %w", err))
		return false
	}
	d.selection.choosing.Lock() // a choice before this is settled here, and a later one by itself
	defer d.selection.choosing.Unlock()
	d.mu.Lock()
	verified := d.picker.Verified().Clone()
	if d.t.version == Hybrid { // whose SHA-1 sums have shown what is wrong
		maps.DeleteFunc(d.hashing.seen, func(i int, _ merkle.Hash) bool { return !verified.Has(i) })
	}
	d.mu.Unlock()
	if err := d.store.Settle(d.life.ctx, verified); err != nil {
		d.endByStorage(err)
		return false
	}
	now := time.Now()
	d.mu.Lock()
	defer d.unlock(now)
	d.restorePartial(partial, now)
	d.progress.checking = false
	d.wantLayers()
	d.awaitLayers()
	d.progress.waitsFrom(now)
	d.disk.nextSave = now.Add(resumeEvery)
	n := d.picker.Verified().Count()
	d.life.giveBack()
	d.logLater(func() { d.log.Info("examined", "have", n, "pieces", d.t.NumPieces()) })
	return true
}

// takeResumed takes the pieces that the sidecar claims, and returns those that have to be hashed.
func (d *Download) takeResumed(have bits.Set) (todo bits.Set) {
	todo = bits.New(d.t.NumPieces())
	if !have.Full() {
		todo = d.store.Present(d.life.ctx)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range have.All() {
		todo.Remove(i)
		d.gotPiece(i, nil)
	}
	return todo
}

// verifyAtStart is verify for pieces that were there at the start. A storage of the user's own has no bad sectors: an error of it ends the
// download.
func (d *Download) verifyAtStart(content storage.Content, which bits.Set, each func(piece int, ok bool)) error {
	unread := d.failedToRead
	if d.o.Storage != nil {
		unread = nil
	}
	return d.client.verifiers.Verify(d.life.ctx, d.store.Place(), content, d.store, which, each, unread)
}

// verifyPresent hashes the pieces for which storage holds bytes, and adds those that match to the verified ones.
func (d *Download) verifyPresent(todo bits.Set) error {
	return d.verifyAtStart(d.t.content(), todo, func(i int, ok bool) {
		var err error
		if ok {
			err = d.storeVerified(i)
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if err != nil {
			d.failStorage(err)
		}
		d.progress.checked += d.t.layout.PieceSize(i)
		if ok {
			d.gotPiece(i, nil)
			d.disk.resumable = true
		}
	})
}

// restorePartial takes the blocks of pieces that were incomplete when the sidecar was written, unless these cannot be read. The caller
// holds d.mu.
func (d *Download) restorePartial(partial map[int]bits.Set, now time.Time) {
	for _, i := range slices.Sorted(maps.Keys(partial)) {
		if blocks := partial[i]; !d.picker.Verified().Has(i) && !d.unreadLately(i) && blocks.Count() > 0 {
			d.picker.Restore(i, &blocks)
			d.assembling.pieces[int32(i)] = &assembly{attempt: d.picker.Started(i).Attempt, direct: true, touched: now}
			d.finishPiece(int32(i))
		}
	}
}
