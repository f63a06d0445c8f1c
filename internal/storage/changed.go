package storage

import (
	"context"
	"errors"
	"fmt"

	"github.com/shoal-go/torrent/internal/bits"
)

// Changed is ChangedAt for all of a piece.
func (s *fileStore) Changed(piece int) error {
	return s.ChangedAt(s.content.PieceOffset(piece), s.content.PieceSize(piece))
}

// ChangedAt compares the size and the modification time of every file that holds some of the n bytes at off, which are within a piece.
// That takes one system call for each file and opens none.
func (s *fileStore) ChangedAt(off, n int64) error {
	return s.examine(func() error { return s.changedAt(off, n) })
}

// examine calls do, which looks at files, and once more if these could not be examined and the directory was mounted again.
func (s *fileStore) examine(do func() error) error {
	mount := s.mount.Load()
	err := do()
	if errors.Is(err, ErrUnexamined) && s.reopen(mount, false) {
		err = do()
	}
	return err
}

func (s *fileStore) changedAt(off, n int64) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return ErrClosed
	}
	piece := s.content.PieceAt(off)
	if s.isDraft(piece) { // whose bytes are not in its files
		return s.compare(s.edgesFile())
	}
	edges := false
	for i := s.content.FileAt(off); i < s.content.NumFiles() && s.content.File(i).Offset < off+n; i++ {
		if f := s.content.File(i); f.Pad || f.Length == 0 {
			continue
		} else if err := s.comparePart(i, piece); err != nil {
			return err
		}
		edges = edges || !s.files[i].here
	}
	if edges {
		return s.compare(s.edgesFile())
	}
	return nil
}

// comparePart is compare for a file that holds a part of piece or, if that should be in the edges, returns ErrChanged if it is not. The
// caller holds s.mu.
func (s *fileStore) comparePart(i, piece int) error {
	if s.files[i].here || s.files[i].meddled.Load() {
		return s.compare(i)
	}
	if _, err := s.slot(piece, false); err != nil {
		return fmt.Errorf("%w: %w", ErrChanged, err)
	}
	return nil
}

func (s *fileStore) ChangedFile(i int) error {
	return s.examine(func() error { return s.changedFile(i) })
}

func (s *fileStore) changedFile(i int) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return ErrClosed
	}
	if s.content.File(i).Length == 0 || !s.files[i].here && !s.files[i].meddled.Load() {
		return nil
	}
	return s.compare(i)
}

func (s *fileStore) AnyChanged(ctx context.Context, have bits.Set) (int, error) {
	s.mu.RLock()
	handles := s.handles
	s.mu.RUnlock()
	// Where writes go to a cache at first, as with network file systems, only close tells of a full disk.
	if err := handles.closeWritten(); err != nil {
		return -1, fmt.Errorf("close what was written: %w", err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return -1, ErrClosed
	}
	for i := range s.content.NumFiles() {
		f := s.content.File(i)
		if f.Pad || f.Length == 0 {
			continue
		}
		if ctx.Err() != nil {
			return -1, context.Cause(ctx)
		}
		for piece, end := s.content.PiecesOf(i); piece < end; piece++ {
			if !have.Has(piece) {
				continue
			}
			if err := s.comparePart(i, piece); err != nil {
				return piece, err
			}
			if s.files[i].here {
				break
			}
		}
	}
	if piece := s.slotOfAny(have); piece >= 0 {
		if err := s.compare(s.edgesFile()); err != nil {
			return piece, err
		}
	}
	return -1, nil
}

// compare returns ErrChanged if file i is not as it was left, and ErrUnexamined if it cannot tell. The caller holds s.mu.
func (s *fileStore) compare(i int) error {
	f := &s.files[i]
	switch {
	case f.meddled.Load():
		// If it cannot be examined, Refresh cannot accept it either.
		if _, err := s.disk.Stat(f.name); err != nil && !missing(err) {
			return fmt.Errorf("%w: %w", ErrUnexamined, err)
		}
		return fmt.Errorf("%s: %w", s.path(i), ErrChanged)
	case f.writing.Load():
		// This store is writing to the file, and compared it first.
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := s.disk.Stat(f.name)
	switch {
	case err != nil && !missing(err):
		return fmt.Errorf("%w: %w", ErrUnexamined, err)
	case err == nil && info.Stamp == f.left:
		return nil
	case err == nil && info.Size != f.left.Size:
		return fmt.Errorf("%s: %w: it has %d bytes and had %d", s.path(i), ErrChanged, info.Size, f.left.Size)
	case err == nil:
		return fmt.Errorf("%s: %w", s.path(i), ErrChanged)
	case f.left == Stamp{}:
		if !s.handles.drop(i) {
			return nil
		}
		f.meddled.Store(true) // another program made it and removed it again, and it was read in between
	}
	return fmt.Errorf("%s: %w: it no longer exists", s.path(i), ErrChanged)
}

// isElsewhere reports whether the name of file i does not lead to the open file that info describes any more: another program has given
// that another name. An identity that differs does not show it alone, since some file systems invent one at each look. The caller holds
// s.mu.
func (s *fileStore) isElsewhere(i int, info FileInfo) bool {
	now, err := s.disk.Stat(s.files[i].name)
	return missing(err) || err == nil && now.ID != info.ID && now.Stamp != info.Stamp
}

func (s *fileStore) Refresh(piece int, doubted bits.Set) (bits.Set, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	doubt := bits.New(s.content.NumPieces())
	if s.closed {
		return doubt, ErrClosed
	}
	doubt.Add(piece)
	accept := true
	add := func(piece int) {
		doubt.Add(piece)
		accept = accept && doubted.Has(piece)
	}
	for i := range s.content.FilesOf(piece) {
		if !s.files[i].here && !s.files[i].meddled.Load() {
			continue
		} else if err := s.compare(i); err == nil {
			continue
		} else if !errors.Is(err, ErrChanged) {
			return doubt, err
		}
		accept = true
		for first, end := s.content.PiecesOf(i); first < end; first++ {
			add(first)
		}
		if accept {
			if err := s.look(i); err != nil {
				return doubt, err
			}
			s.dropDrafts(i)
		}
	}
	edges := s.edgesFile()
	if !s.usesEdges(piece) {
		return doubt, nil
	}
	if err := s.compare(edges); err == nil || !errors.Is(err, ErrChanged) {
		return doubt, err
	}
	accept = true
	for piece := range s.slots {
		add(piece)
	}
	if !accept {
		return doubt, nil
	}
	clear(s.slots)
	if err := s.look(edges); err != nil {
		return doubt, err
	}
	return doubt, s.findSlots()
}

// leftAs returns the stamp with which file i was left.
func (s *fileStore) leftAs(i int) Stamp {
	f := &s.files[i]
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.left
}

// look accepts file i as it is now: later changes are found relative to that. The caller holds s.mu for writing.
func (s *fileStore) look(i int) error {
	f := &s.files[i]
	if !f.here { // what it is now matters once it is wanted
		f.meddled.Store(false)
		f.distrusted.Store(false)
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s.handles.drop(i)
	info, err := s.disk.Stat(f.name)
	if err != nil && !missing(err) {
		return err
	}
	if s.move != nil {
		s.move.accepted(i)
	}
	if info.ID != f.id {
		f.written, f.known, f.long = false, false, false
	}
	f.left, f.id, f.links = info.Stamp, info.ID, info.Links
	f.ready.Store(false)
	f.ours.Store(false)
	f.durable = false
	f.meddled.Store(false)
	f.distrusted.Store(false)
	return nil
}
