package main

import (
	"cmp"
	"context"
	"errors"
	"log"
	"slices"
	"sync"
	"time"

	"github.com/shoal-go/torrent"
)

// A shelf holds all torrents that the page shows.
type shelf struct {
	options torrent.Options // of each download
	state   state
	ctx     context.Context
	cancel  context.CancelFunc

	mu      sync.Mutex
	items   map[torrent.Hash]*item
	changed chan struct{} // closed and replaced when something was added, removed or told to do something else
}

// openShelf goes on with what an earlier run had.
func openShelf(o torrent.Options) (*shelf, error) {
	state, err := openState(o.Dir)
	if err != nil {
		return nil, err
	}
	s := &shelf{options: o, state: state, items: make(map[torrent.Hash]*item), changed: make(chan struct{})}
	s.options.Seed, s.options.KeepResume = true, true
	if err := o.Client.Open(); err != nil {
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	err = state.load(func(h torrent.Hash, t *torrent.Torrent, v saved) {
		it, err := newItem(s, h, t, v)
		if err != nil {
			log.Printf("%s: %v", h, err)
			return
		}
		s.items[h] = it
		it.start()
	})
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// close stops all downloads, and saves how much they have moved.
func (s *shelf) close() {
	for _, it := range s.list() {
		it.save()
	}
	s.cancel()
	for _, it := range s.list() {
		it.stop()
	}
}

// errKnown is returned by add for what is there already.
var errKnown = errors.New("this torrent is here already")

// add takes a torrent, or if t is nil what m leads to.
func (s *shelf) add(t *torrent.Torrent, m *torrent.Magnet) (*item, error) {
	v := saved{Added: time.Now()}
	var h torrent.Hash
	if t != nil {
		h = t.InfoHash()
	} else {
		h, v.Magnet = hashOf(m), m.String()
	}
	it, err := newItem(s, h, t, v)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	if s.items[h] != nil {
		s.mu.Unlock()
		return nil, errKnown
	}
	s.items[h] = it
	s.mu.Unlock()
	if t != nil {
		err = s.state.saveTorrent(h, t)
	}
	if err = errors.Join(err, it.save()); err != nil {
		s.mu.Lock()
		delete(s.items, h)
		s.mu.Unlock()
		return nil, err
	}
	it.start()
	s.notify()
	return it, nil
}

// hashOf is what a link is known by here: of version 2 alone, what others know it by where there is room for 20 bytes (BEP 52).
func hashOf(m *torrent.Magnet) (h torrent.Hash) {
	if m.InfoHash != h {
		return m.InfoHash
	}
	copy(h[:], m.InfoHashV2[:])
	return h
}

// remove stops a download and forgets it. What it has on disk stays, or goes too.
func (s *shelf) remove(it *item, files bool) error {
	s.mu.Lock()
	delete(s.items, it.hash)
	s.mu.Unlock()
	s.notify()
	verified := it.stop()
	if !files {
		verified = nil
	}
	return errors.Join(s.state.forget(it.hash), it.removeFiles(verified))
}

func (s *shelf) item(h torrent.Hash) *item {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.items[h]
}

// list is all items, the newest first.
func (s *shelf) list() []*item {
	s.mu.Lock()
	defer s.mu.Unlock()
	var items []*item
	for _, it := range s.items {
		items = append(items, it)
	}
	slices.SortFunc(items, func(a, b *item) int {
		return cmp.Or(b.added.Compare(a.added), cmp.Compare(a.hash.String(), b.hash.String()))
	})
	return items
}

// notify has all pages look again at once.
func (s *shelf) notify() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *shelf) change() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}
