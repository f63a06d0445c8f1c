package storage

import (
	"errors"
	"fmt"

	"github.com/shoal-go/torrent/internal/bits"
)

// Finish truncates wanted files that were too long when this download wrote to them. It removes what was kept for the next run and
// releases the lock, unless the edges hold bytes that are needed if more files become wanted. It does not sync: without a sidecar
// it makes no claim that a loss of power could make wrong.
func (s *fileStore) Finish() error {
	if err := s.cutAll(func(int) bool { return true }); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if err := s.makeLinks(); err != nil {
		return err
	}
	if s.edgesNeeded() {
		return nil
	}
	return s.removeKept(".resume", ".resume.tmp", ".resume.bad", ".edges.resume")
}

func (s *fileStore) Keep(have bits.Set, partial map[int]bits.Set) error {
	if err := s.tidy(have); err != nil {
		return err
	}
	if err := s.keepSidecar(have, partial); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.edgesNeeded() {
		return nil
	}
	return s.removeKept()
}

// tidy does the part of Finish that concerns neither the sidecar nor the lock, as far as the pieces in have are all of their
// files.
func (s *fileStore) tidy(have bits.Set) error {
	whole := func(i int) bool { return s.holdsAll(i, have) }
	if err := s.cutAll(whole); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if have.Full() || s.allWanted(whole) {
		if err := s.makeLinks(); err != nil {
			return err
		}
	}
	if !have.Full() || s.edgesNeeded() {
		return nil
	}
	return s.removeSidecars(".resume.tmp", ".resume.bad", ".edges.resume")
}

// keepSidecar replaces the sidecar if its content would be different. It writes none for a have and partial that are empty.
func (s *fileStore) keepSidecar(have bits.Set, partial map[int]bits.Set) error {
	s.resumeMu.Lock()
	defer s.resumeMu.Unlock()
	b := s.encodeResume(have, partial)
	if saved := s.saved.Load(); saved != nil && *saved == *checksum(b) || have.Count() == 0 && len(partial) == 0 {
		return nil
	}
	if err := s.lock(); err != nil {
		s.log.Warn("no resume sidecar is kept", "err", err)
		return nil
	}
	return s.writeSidecar(b, have)
}

// allWanted reports whether all wanted files are whole. The caller holds s.mu.
func (s *fileStore) allWanted(whole func(i int) bool) bool {
	for i := range s.content.NumFiles() {
		if s.isWanted(i) && !s.content.File(i).Pad && !whole(i) {
			return false
		}
	}
	return true
}

// cutAll truncates the files that are wanted, too long since before this download wrote to them, and whole. It leaves those as they
// are to which it cannot write.
func (s *fileStore) cutAll(whole func(i int) bool) error {
	for i := range s.content.NumFiles() {
		if !s.isTooLong(i) || !whole(i) {
			continue
		}
		err := s.copyShared(func() error { return s.ownAgain(i) })
		if err == nil {
			err = s.cut(i)
		} else if !Exhausted(err) && !errors.Is(err, ErrClosed) {
			s.log.Warn("file is too long", "file", s.content.File(i).Path, "err", err)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// isTooLong reports whether file i is wanted, is too long, and was so when this download wrote to it. What another program has appended
// since then stays.
func (s *fileStore) isTooLong(i int) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	f := &s.files[i]
	f.mu.Lock()
	defer f.mu.Unlock()
	return s.isWanted(i) && f.long && f.left.Size > s.content.File(i).Length
}

// ownAgain is own for a file that may have been given other names since it was written.
func (s *fileStore) ownAgain(i int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if err := s.lock(); err != nil {
		return err
	}
	s.files[i].ready.Store(false)
	return s.own(i, true)
}

// removeKept removes the files with these suffixes beside the content, and releases the lock, which removes the lock file. The
// caller holds s.mu for writing.
func (s *fileStore) removeKept(suffixes ...string) error {
	if err := s.removeSidecars(append(suffixes, ".lock")...); err != nil {
		return err
	}
	return s.releaseUnlessMoving()
}

// removeSidecars removes the files with these suffixes beside the content, except the lock file, which release removes.
// The caller holds s.mu for writing.
func (s *fileStore) removeSidecars(suffixes ...string) error {
	for _, suffix := range suffixes {
		name := s.sidecar(suffix)
		if _, err := s.disk.Stat(name); absent(err) {
			continue
		}
		if err := s.lock(); err != nil {
			// The content is complete, but the directory is read-only, or another Store writes to it.
			s.log.Debug("sidecar is not removed", "file", name, "err", err)
			return nil
		}
		if suffix == ".lock" {
			continue
		}
		if err := removeIfPresent(s.disk, name); err != nil {
			return err
		}
		switch suffix {
		case ".resume":
			s.saved.Store(nil)
		case ".edges.resume":
			edges := s.edgesFile()
			s.handles.drop(edges)
			s.files[edges].left = Stamp{}
			clear(s.slots)
		}
	}
	return nil
}

// cut truncates file i to its length in the torrent.
func (s *fileStore) cut(i int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	f := &s.files[i]
	f.mu.Lock()
	defer f.mu.Unlock()
	h, err := s.handles.get(i, true, false)
	if absent(err) {
		return nil // another program removed it
	} else if err != nil {
		return err
	}
	defer s.handles.put(h)
	if info, err := h.f.Stat(); err != nil {
		return err
	} else if info.Stamp != f.left {
		return nil // another program wrote to it, or put it here
	}
	if err := h.f.Truncate(s.content.File(i).Length); err != nil {
		return fmt.Errorf("%s: %w", s.path(i), err)
	}
	f.long = false
	s.markDirty(i)
	info, err := h.f.Stat()
	if err != nil {
		f.meddled.Store(true) // as far as is known
		return err
	}
	f.left = info.Stamp
	return nil
}
