package storage

import (
	"fmt"
	"io"
	"math"
)

const (
	// maxCopied is the length of the longest file that Bytes copies: a map of so little costs as much, and a process has
	// some 65,000.
	maxCopied = 16 << 10
	// checkMaps is after how many maps Bytes looks again how many the process has.
	checkMaps = 1024
)

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
	if s.maps.Add(1)%checkMaps == 1 || s.crowded.Load() {
		s.crowded.Store(s.mapsAreMany())
	}
	if s.crowded.Load() {
		return nil, nil, fmt.Errorf("%s: map %d bytes, beside very many other maps: %w", s.path(i), length, ErrTooLarge)
	}
	b, release, err := h.f.Mmap(int(length))
	if Exhausted(err) { // what is lacking is addresses, for which it is no use to wait
		err = fmt.Errorf("%s: map %d bytes: %w: %v", s.path(i), length, ErrTooLarge, err)
	}
	return b, release, err
}
