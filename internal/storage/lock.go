package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// probe returns ErrInUse if another Store is writing the same content to the same directory.
func (s *fileStore) probe() error {
	unlock, err := s.disk.Lock(s.sidecar(".lock"), false)
	if errors.Is(err, ErrInUse) {
		return &Claimed{Path: filepath.Join(s.dir, filepath.FromSlash(s.content.Name)), Owner: s.content.InfoHash}
	}
	if err != nil {
		// The lock file does not exist or cannot be opened. The first write finds out which.
		return nil
	}
	return unlock(false)
}

// lock takes the lock unless it is held. It is called before anything is written.
func (s *fileStore) lock() error {
	if s.locked.Load() {
		return nil
	}
	s.lockMu.Lock()
	defer s.lockMu.Unlock()
	if s.unlock != nil {
		return nil
	}
	var unlock func(remove bool) error
	err := s.handles.makeRoom(func() (err error) {
		unlock, err = s.disk.Lock(s.sidecar(".lock"), true)
		return err
	})
	if err != nil {
		return fmt.Errorf("write to %s: %w", s.dir, err)
	}
	s.unlock = unlock
	s.locked.Store(true)
	return nil
}

func (s *fileStore) Release() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	return s.releaseUnlessMoving()
}

// releaseUnlessMoving calls release, or has the Move in progress release the lock at its end. The caller holds s.mu for writing.
func (s *fileStore) releaseUnlessMoving() error {
	if s.move != nil {
		s.move.release = true
		return nil
	}
	return s.release()
}

// release releases the lock and removes its file.
func (s *fileStore) release() error {
	s.lockMu.Lock()
	defer s.lockMu.Unlock()
	if s.unlock == nil {
		return nil
	}
	err := s.unlock(true)
	s.unlock = nil
	s.locked.Store(false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the directory was removed, and the lock with it
	}
	return err
}
