package storage

import (
	"fmt"
	"maps"

	"github.com/shoal-go/torrent/internal/bits"
)

// A draft is a piece whose unverified blocks go to its slot in the edges, and not to its files, because one of these may belong to
// another program: it exists, and no piece of it was verified. Once the piece is verified it is copied to its files.

func (s *fileStore) WriteAt(p []byte, off int64) (n int, err error) {
	if err := checkWrite(&s.content, false, off, int64(len(p))); err != nil {
		return 0, err
	}
	one := s.scratch.Get().(*[][]byte)
	defer s.scratch.Put(one)
	for n < len(p) {
		piece := s.content.PieceAt(off)
		part := p[n : n+int(min(int64(len(p)-n), s.content.PieceEnd(piece)-off))]
		ours, err := s.mayWrite(piece)
		if err == nil && ours {
			*one = append((*one)[:0], part)
			err = s.writeBlocks(*one, off, false)
			clear(*one)
		} else if err == nil {
			err = s.writeDraft(piece, part, off)
		}
		if err != nil {
			return n, err
		}
		n, off = n+len(part), off+int64(len(part))
	}
	return n, nil
}

// isDraft reports whether piece is a draft.
func (s *fileStore) isDraft(piece int) bool {
	if s.numDrafts.Load() == 0 {
		return false
	}
	s.slotMu.Lock()
	defer s.slotMu.Unlock()
	return s.drafts[piece]
}

// decide records whether piece is a draft, unless a write of another block has decided that meanwhile, and returns whether it is one.
func (s *fileStore) decide(piece int, draft bool) bool {
	s.slotMu.Lock()
	defer s.slotMu.Unlock()
	if draft, decided := s.drafts[piece]; decided {
		return draft
	}
	if draft {
		s.numDrafts.Add(1)
	}
	s.drafts[piece] = draft
	return draft
}

// mayWrite reports whether unverified blocks of piece may go to its files. Files that do not exist are ours once they are made.
func (s *fileStore) mayWrite(piece int) (bool, error) {
	s.slotMu.Lock()
	draft, decided := s.drafts[piece]
	s.slotMu.Unlock()
	if decided {
		return !draft, nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return false, ErrClosed
	}
	for i := range s.content.FilesOf(piece) {
		f := &s.files[i]
		if s.content.File(i).Length == 0 || !f.here || f.ours.Load() {
			continue
		}
		info, err := s.disk.Stat(f.name)
		if err != nil && !missing(err) {
			return false, err
		}
		if err == nil && info.Size > 0 {
			return !s.decide(piece, true), nil
		}
	}
	return !s.decide(piece, false), nil
}

// isOurs records that a piece of file i is verified. That says nothing of a file that does not exist. The caller holds s.mu.
func (s *fileStore) isOurs(i int) {
	if f := &s.files[i]; f.here && !f.ours.Load() && s.leftAs(i) != (Stamp{}) {
		f.ours.Store(true)
	}
}

// writeDraft writes p, which is part of piece, to the slot of the piece.
func (s *fileStore) writeDraft(piece int, p []byte, off int64) error {
	if err := s.lock(); err != nil {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed || s.stopped.Load() {
		return ErrClosed
	}
	return s.writeEdges([][]byte{p}, off, int64(len(p)))
}

// PieceVerified copies a draft to its files.
func (s *fileStore) PieceVerified(piece int) error {
	if s.isDraft(piece) {
		off, end := s.content.PieceOffset(piece), s.content.PieceEnd(piece)
		b := make([]byte, min(maxStep, end-off))
		for off < end {
			b = b[:min(int64(len(b)), end-off)]
			if _, err := s.ReadAt(b, off); err != nil {
				return err
			}
			if err := s.writeBlocks([][]byte{b}, off, true); err != nil {
				return err
			}
			off += int64(len(b))
		}
	}
	return s.isVerified(piece)
}

// isVerified records that piece is verified. It returns ErrChanged if its bytes are no longer here, because a file that held some was
// left alone.
func (s *fileStore) isVerified(piece int) error {
	edges := false
	s.mu.RLock()
	for i := range s.content.FilesOf(piece) {
		s.isOurs(i)
		edges = edges || !s.files[i].here
	}
	s.mu.RUnlock()
	s.slotMu.Lock()
	defer s.slotMu.Unlock()
	if s.drafts[piece] {
		s.numDrafts.Add(-1)
	}
	delete(s.drafts, piece)
	if _, ok := s.slots[piece]; edges && !ok {
		return fmt.Errorf("piece %d: %w", piece, ErrChanged)
	}
	return nil
}

// dropDrafts has the pieces of file i read from there again, because the file is not what it was when it was decided which of them
// are drafts. Their blocks were dropped when the pieces came into doubt.
func (s *fileStore) dropDrafts(i int) {
	first, end := s.content.PiecesOf(i)
	s.slotMu.Lock()
	defer s.slotMu.Unlock()
	maps.DeleteFunc(s.drafts, func(piece int, draft bool) bool {
		drop := first <= piece && piece < end
		if drop && draft {
			s.numDrafts.Add(-1)
		}
		return drop
	})
}

// withoutDrafts returns partial without the drafts, which the next run does not find in the files.
func (s *fileStore) withoutDrafts(partial map[int]bits.Set) map[int]bits.Set {
	if s.numDrafts.Load() == 0 {
		return partial
	}
	partial = maps.Clone(partial)
	maps.DeleteFunc(partial, func(piece int, _ bits.Set) bool { return s.isDraft(piece) })
	return partial
}
