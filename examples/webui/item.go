package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/shoal-go/torrent"
)

// An item is one torrent on the shelf, or the link to one.
type item struct {
	shelf *shelf
	hash  torrent.Hash    // as hashOf has it: that of a hybrid's link may be another than that of its torrent
	link  *torrent.Magnet // nil if it was added as a file
	added time.Time

	control sync.Mutex // held to start, stop, pause and choose
	removed bool       // by stop, for good

	mu     sync.Mutex
	saved  saved
	t      *torrent.Torrent  // nil until the link is resolved
	d      *torrent.Download // nil until it has started, and when it has failed
	err    error             // why it stopped
	cancel context.CancelFunc
	done   chan struct{} // closed when what start began has ended; nil if there is nothing
}

func newItem(s *shelf, h torrent.Hash, t *torrent.Torrent, v saved) (*item, error) {
	it := &item{shelf: s, hash: h, added: v.Added, saved: v, t: t}
	if v.Magnet != "" {
		var err error
		if it.link, err = torrent.ParseMagnet(v.Magnet); err != nil {
			return nil, err
		}
	}
	return it, nil
}

// start begins to download, unless it is under way.
func (it *item) start() {
	it.control.Lock()
	defer it.control.Unlock()
	it.startLocked()
}

func (it *item) startLocked() {
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.removed || it.running() || it.t == nil && it.saved.Paused {
		return
	}
	ctx, cancel := context.WithCancel(it.shelf.ctx)
	it.cancel, it.err, it.done = cancel, nil, make(chan struct{})
	go func() {
		defer close(it.done)
		defer cancel()
		err := it.download(ctx)
		it.mu.Lock()
		if it.d != nil {
			stats := it.d.Stats()
			it.saved.Uploaded, it.saved.Downloaded = stats.Uploaded, stats.Downloaded
			it.d = nil
		}
		if ctx.Err() == nil {
			it.err = err
		}
		it.mu.Unlock()
		it.shelf.notify()
	}()
}

// running reports whether what start began has not ended. The caller holds it.mu.
func (it *item) running() bool {
	if it.done == nil {
		return false
	}
	select {
	case <-it.done:
		return false
	default:
		return true
	}
}

// download resolves the link if there is no torrent yet, downloads, and shares until ctx ends.
func (it *item) download(ctx context.Context) error {
	it.mu.Lock()
	t := it.t
	o := it.shelf.options
	o.Uploaded, o.Downloaded = it.saved.Uploaded, it.saved.Downloaded
	it.mu.Unlock()
	if t == nil {
		var err error
		if t, err = it.link.Resolve(ctx, &o); err != nil {
			return err
		}
		if err := it.resolved(t); err != nil {
			return err
		}
	}
	o.Select = it.priority()
	it.mu.Lock()
	o.Paused = it.saved.Paused
	it.mu.Unlock()
	d, err := t.Start(ctx, &o)
	if err != nil {
		return err
	}
	defer d.Close()
	it.mu.Lock()
	it.d = d
	if it.saved.Paused { // which may have changed since
		d.Pause()
	} else {
		d.Resume()
	}
	it.mu.Unlock()
	it.shelf.notify()
	files, err := d.Wait()
	if err != nil {
		return err
	}
	defer files.Close()
	<-ctx.Done()
	return nil
}

// resolved keeps the torrent that a link has led to.
func (it *item) resolved(t *torrent.Torrent) error {
	it.mu.Lock()
	it.t = t
	for f := range t.Files() {
		if it.link.Priority(f) == torrent.Skip {
			it.saved.Skipped = append(it.saved.Skipped, f.Index)
		}
	}
	it.mu.Unlock()
	it.shelf.notify()
	return errors.Join(it.shelf.state.saveTorrent(it.hash, t), it.save())
}

// priority is the present choice: what is skipped is fetched where it is played.
func (it *item) priority() func(torrent.File) torrent.Priority {
	it.mu.Lock()
	skipped := slices.Clone(it.saved.Skipped)
	it.mu.Unlock()
	return func(f torrent.File) torrent.Priority {
		if slices.Contains(skipped, f.Index) {
			return torrent.OnDemand
		}
		return torrent.Normal
	}
}

// choose says whether a file is wanted.
func (it *item) choose(index int, wanted bool) error {
	it.control.Lock()
	defer it.control.Unlock()
	it.mu.Lock()
	it.saved.Skipped = slices.DeleteFunc(it.saved.Skipped, func(i int) bool { return i == index })
	if !wanted {
		it.saved.Skipped = append(it.saved.Skipped, index)
	}
	d := it.d
	it.mu.Unlock()
	if d != nil {
		d.Select(it.priority())
	}
	it.shelf.notify()
	return it.save()
}

// pause leaves the swarm, or comes back to it. What has failed is tried again.
func (it *item) pause(paused bool) error {
	it.control.Lock()
	defer it.control.Unlock()
	it.mu.Lock()
	it.saved.Paused = paused
	d, t, done := it.d, it.t, it.done
	if d != nil && paused {
		d.Pause()
	} else if d != nil {
		d.Resume()
	}
	if t == nil && paused && done != nil { // a link that is being resolved
		it.cancel()
	}
	it.mu.Unlock()
	if t == nil && paused && done != nil {
		<-done
	}
	if !paused {
		it.startLocked()
	}
	it.shelf.notify()
	return it.save()
}

// stop ends the download for good, and returns which files it has something of.
func (it *item) stop() (verified []torrent.File) {
	it.control.Lock()
	defer it.control.Unlock()
	it.mu.Lock()
	it.removed = true
	done := it.done
	if it.d != nil {
		for f, n := range it.d.Files() {
			if n > 0 {
				verified = append(verified, f)
			}
		}
	}
	if done != nil {
		it.cancel()
	}
	it.mu.Unlock()
	if done != nil {
		<-done
	}
	return verified
}

// save writes down what the next run needs to know.
func (it *item) save() error {
	it.mu.Lock()
	v := it.saved
	if it.d != nil {
		s := it.d.Stats()
		v.Uploaded, v.Downloaded = s.Uploaded, s.Downloaded
	}
	it.mu.Unlock()
	return it.shelf.state.save(it.hash, v)
}

// removeFiles deletes files of the torrent, and the directories that are empty then. A file of which nothing was verified is
// not among them: it may be the user's own. What the download has beside its files is deleted in any case.
func (it *item) removeFiles(files []torrent.File) error {
	root, err := os.OpenRoot(it.shelf.options.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	var errs []error
	for _, f := range files {
		if err := root.Remove(f.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
			if root.Remove(dir) != nil {
				break // something else is in it
			}
		}
	}
	t := it.torrent()
	if t == nil {
		return nil // nothing was begun
	}
	beside, err := fs.Glob(root.FS(), fmt.Sprintf(".%s.*", t.InfoHash()))
	for _, name := range beside {
		err = errors.Join(err, root.Remove(name))
	}
	return errors.Join(append(errs, err)...)
}

// torrent is nil until it is known.
func (it *item) torrent() *torrent.Torrent {
	it.mu.Lock()
	defer it.mu.Unlock()
	return it.t
}

// underWay is the download, or nil while there is none.
func (it *item) underWay() *torrent.Download {
	it.mu.Lock()
	defer it.mu.Unlock()
	return it.d
}
