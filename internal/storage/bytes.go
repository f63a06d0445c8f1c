package storage

import (
	"fmt"
	"io"
	"math"
	"sync"
)

const (
	// maxCopied is the length in bytes of the longest file that Bytes copies. To map so little costs as much as to copy it, and
	// Linux allows a process about 65,000 maps.
	maxCopied = 16 << 10
	// maxUnseen is how many maps a store makes at most before it counts those of the process again.
	maxUnseen = 1024
)

// mapCount counts the maps of one store, and now and then those of the whole process, which is slow if there are many. Between
// two counts of the process a store makes fewer than half as many maps as it had at the first of the two. So all stores of the
// process together have at most three quarters of the maps that the system allows, although they do not know of each other: the
// store that counts last finds at most half of them in use, and that includes all maps that the others had when they counted.
type mapCount struct {
	mu     sync.Mutex
	all    int
	unseen int // made since the process was last counted
}

// add counts another map and returns true, or returns false if many reports that the process has too many.
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

// Bytes maps file i, or copies it if it has at most maxCopied bytes. Another program may still truncate the file under the map.
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
		return nil, nil, fmt.Errorf("%s: map %d bytes: too many maps in this process: %w", s.path(i), length, ErrTooLarge)
	}
	b, unmap, err := h.f.Mmap(int(length))
	if err != nil {
		s.maps.remove()
		if Exhausted(err) { // out of address space: waiting does not help
			err = fmt.Errorf("%s: map %d bytes: %w: %v", s.path(i), length, ErrTooLarge, err)
		}
		return nil, nil, err
	}
	return b, func() error {
		s.maps.remove()
		return unmap()
	}, nil
}
