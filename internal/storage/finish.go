package storage

import (
	"fmt"
)

// Finish cuts wanted files that are too long and were written to, removes what was kept for the next run, and releases the lock, unless
// the edges hold bytes that a wider choice will need. It does not sync: without a sidecar nothing is
// claimed, and so nothing can be claimed wrongly.
func (s *fileStore) Finish() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	for i := range s.content.NumFiles() {
		f, length := &s.files[i], s.content.File(i).Length
		if len(s.wanted) > 0 && s.wanted[i] && f.written && f.left.Size > length {
			if err := s.cut(i, length); err != nil {
				return err
			}
		}
	}
	if s.edgesNeeded() {
		return nil
	}
	for _, suffix := range [...]string{".resume", ".resume.tmp", ".resume.bad", ".edges.resume", ".lock"} {
		name := s.sidecar(suffix)
		if _, err := s.disk.Stat(name); absent(err) {
			continue
		}
		if err := s.lock(); err != nil {
			// The content is complete, but the directory is read-only, or another Store writes to it.
			s.log.Debug("sidecar stays", "file", name, "err", err)
			return nil
		}
		if suffix != ".lock" { // release removes that
			if err := s.disk.Remove(name); err != nil && !absent(err) {
				return err
			}
		}
	}
	edges := s.edgesFile()
	s.handles.drop(edges)
	s.files[edges].left = Stamp{}
	clear(s.slots)
	return s.release()
}

// cut truncates file i to its length.
func (s *fileStore) cut(i int, length int64) error {
	if err := s.lock(); err != nil {
		s.log.Warn("file is too long", "file", s.path(i), "err", err)
		return nil
	}
	f := &s.files[i]
	f.mu.Lock()
	defer f.mu.Unlock()
	h, err := s.handles.get(i, true, false)
	if err != nil {
		return err
	}
	defer s.handles.put(h)
	if err := h.f.Truncate(length); err != nil {
		return fmt.Errorf("%s: %w", s.path(i), err)
	}
	info, err := h.f.Stat()
	f.left = info.Stamp
	return err
}
