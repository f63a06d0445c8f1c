package storage

import (
	"fmt"
	"io"
	"math"
	"sync"
)

const (
	// maxCopied is the length of the longest file that Bytes copies: a map of so little costs as much, and a process has
	// some 65,000.
	maxCopied = 16 << 10
	// maxUnseen is how many maps a store makes at most before it looks again how many the process has.
	maxUnseen = 1024
)

// mapCount counts the maps of one store, and looks now and then how many the process has, which takes a while if they are many.
// A store makes fewer maps after a look than half of those that it had then. So all stores of the process together have no
// more than three quarters of what the system allows, although they know nothing of each other: when the last of them looks
// and finds at most half, all that the others had when they looked is among that.
type mapCount struct {
	mu     sync.Mutex
	all    int
	unseen int // made since the last look
}

// add counts another map, unless many reports that the process has too many.
func (c *mapCount) add(many func() bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unseen >= maxUnseen || 3*c.unseen >= c.all-2 {
		if many() {
			return false
		}
		c.unseen = 0
	}
	c.all++
	c.unseen++
	return true
}

func (c *mapCount) remove() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
}

// Bytes maps file i, or copies it if it is short. The file may still shrink under the map.
func (s *fileStore) Bytes(i int) ([]byte, func() error, error) {
	length := s.content.File(i).Length
	if err := s.ChangedFile(i); err != nil {
		return nil, nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch {
	case s.closed:
		return nil, nil, ErrClosed
	case length > math.MaxInt:
		return nil, nil, fmt.Errorf("%s: %d bytes in one slice: %w", s.path(i), length, ErrTooLarge)
	case length == 0:
		return []byte{}, func() error { return nil }, nil
	}
	h, err := s.handles.get(i, false, false)
	if err != nil {
		return nil, nil, err
	}
	defer s.handles.put(h)
	info, err := h.f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if info.Size < length {
		return nil, nil, fmt.Errorf("%s: %d of %d bytes: %w", s.path(i), info.Size, length, io.ErrUnexpectedEOF)
	}
	if length <= maxCopied {
		b := make([]byte, length)
		return b, func() error { return nil }, readFull(h.f, b, 0)
	}
	if !s.maps.add(s.mapsAreMany) {
		return nil, nil, fmt.Errorf("%s: map %d bytes, beside very many other maps: %w", s.path(i), length, ErrTooLarge)
	}
	b, unmap, err := h.f.Mmap(int(length))
	if err != nil {
		s.maps.remove()
		if Exhausted(err) { // what is lacking is addresses, for which it is no use to wait
			err = fmt.Errorf("%s: map %d bytes: %w: %v", s.path(i), length, ErrTooLarge, err)
		}
		return nil, nil, err
	}
	return b, func() error {
		s.maps.remove()
		return unmap()
	}, nil
}
