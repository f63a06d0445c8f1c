package storage

import (
	"errors"
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

// remove counts a map less, and reports whether it was the last one.
func (c *mapCount) remove() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	return c.all == 0
}

func (c *mapCount) any() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all > 0
}

// closeDisk closes the disk or, if there are maps, has the release of the last one close it. Until then no other download may
// have the files: if it truncated one, reading the map would crash the program. The caller holds s.mu for writing.
func (s *fileStore) closeDisk() error {
	if s.maps.any() {
		s.kept = s.disk
		return nil
	}
	return s.disk.Close()
}

// closeKept closes the disk that closeDisk kept, if any. The caller holds s.mu for writing.
func (s *fileStore) closeKept() error {
	if s.kept == nil {
		return nil
	}
	err := s.kept.Close()
	s.kept = nil
	return err
}

func (s *fileStore) Copies(i int) int { return int(s.files[i].copies.Load()) }

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
	if err := s.trusted(i); err != nil {
		return nil, nil, err
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
		err := unmap()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.maps.remove() {
			err = errors.Join(err, s.closeKept())
		}
		return err
	}, nil
}
