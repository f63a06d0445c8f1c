package torrent

import (
	"context"
	"errors"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/storage"
)

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
