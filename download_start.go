package torrent

import (
	"context"
	"errors"
	"fmt"

	"github.com/shoal-go/torrent/internal/choker"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/picker"
	"github.com/shoal-go/torrent/internal/ratelimit"
	"github.com/shoal-go/torrent/internal/storage"
)

// ownClient reports whether the client belongs to this download alone, and is closed with it.
func (d *Download) ownClient() bool { return d.o.Client == nil }

// open does everything that can make Start fail.
func (d *Download) open() (err error) {
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
	d.assembling.checks = make(chan storage.Check, cap(d.client.hashing))
	for range cap(d.assembling.checks) {
		d.assembling.checks <- nil
	}
	d.traffic.gate = ratelimit.NewGate(ratelimit.Join(d.o.DownloadLimit, d.client.DownloadLimit), int(min(blockSize, d.t.layout.PieceLength())))
	d.uploadLimits = ratelimit.Join(d.o.UploadLimit, d.client.UploadLimit)
	if err := d.client.add(d); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			d.client.remove(d)
		}
	}()
	if d.store, err = d.openStore(); err != nil {
		return err
	}
	d.store = patientStore{d.store, d}
	d.files = newDownloaded(d.t, d.store, d.endSharing)
	if err = d.choose(choosePriorities(d.t, d.o.Select)); err != nil {
		d.store.Close()
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

func (d *Download) openStore() (storage.Store, error) {
	switch {
	case d.o.Storage != nil:
		st, err := d.o.Storage(d.t)
		if err == nil && st == nil {
			err = errors.New("there is none")
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
