package torrent

import (
	"errors"
	"fmt"

	"github.com/shoal-go/torrent/internal/bits"
)

// errChanged is in what changed returns where the file itself, and not the asking, is the reason.
var errChanged = errors.New("changed by another program")

// changed looks at size, modification time and inode of every file under piece: one system call a
// file, and none is opened.
func (s *fileStorage) changed(piece int) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return ErrClosed
	}
	edges := false
	for i := range s.content.FilesOf(piece) {
		if !s.files[i].here {
			edges = true
		} else if err := s.compare(i); err != nil {
			return err
		}
	}
	if edges {
		return s.compare(s.edgesFile())
	}
	return nil
}

func (s *fileStorage) changedFile(i int) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return ErrClosed
	}
	if s.content.File(i).Length == 0 || !s.files[i].here {
		return nil
	}
	return s.compare(i)
}

func (s *fileStorage) anyChanged(have bits.Set) (int, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return -1, ErrClosed
	}
	for i := range s.content.NumFiles() {
		f := s.content.File(i)
		if f.Pad || f.Length == 0 || !s.files[i].here {
			continue
		}
		for piece, end := s.content.PiecesOf(i); piece < end; piece++ {
			if have.Has(piece) {
				if err := s.compare(i); err != nil {
					return piece, err
				}
				break
			}
		}
	}
	for piece := range s.slots {
		if have.Has(piece) && s.usesEdges(piece) {
			if err := s.compare(s.edgesFile()); err != nil {
				return piece, err
			}
			break
		}
	}
	return -1, nil
}

// compare is errChanged if file i is not as it was left.
func (s *fileStorage) compare(i int) error {
	f := &s.files[i]
	if !f.meddled.Load() {
		if f.writing.Load() {
			// The file is changing under our own hands. Who does it looked before.
			return nil
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		info, err := s.disk.stat(f.name)
		if err != nil && !absent(err) {
			return err
		}
		if err == nil && info.stamp == f.left || err != nil && f.left == (stamp{}) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w: it is gone", s.path(i), errChanged)
		}
		if info.size != f.left.size {
			return fmt.Errorf("%s: %w: %d bytes, left with %d", s.path(i), errChanged, info.size, f.left.size)
		}
	}
	return fmt.Errorf("%s: %w", s.path(i), errChanged)
}

func (s *fileStorage) renew(piece int) (bits.Set, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	doubt := bits.New(s.content.NumPieces())
	if s.closed {
		return doubt, ErrClosed
	}
	doubt.Add(piece)
	for i := range s.content.FilesOf(piece) {
		if !s.files[i].here || s.compare(i) == nil {
			continue
		}
		if err := s.look(i); err != nil {
			return doubt, err
		}
		for first, end := s.content.PiecesOf(i); first < end; first++ {
			doubt.Add(first)
		}
	}
	if edges := s.edgesFile(); s.usesEdges(piece) && s.compare(edges) != nil {
		for piece := range s.slots {
			doubt.Add(piece)
		}
		clear(s.slots)
		if err := s.look(edges); err != nil {
			return doubt, err
		}
		return doubt, s.findSlots()
	}
	return doubt, nil
}

// look takes file i as it is now for how it was left.
func (s *fileStorage) look(i int) error {
	f := &s.files[i]
	f.mu.Lock()
	defer f.mu.Unlock()
	s.handles.drop(i)
	info, err := s.disk.stat(f.name)
	if err != nil && !absent(err) {
		return err
	}
	f.left = info.stamp
	f.meddled.Store(false)
	return nil
}
