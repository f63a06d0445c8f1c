package storage

import (
	"errors"
	"fmt"
	"io/fs"
)

// probe is ErrInUse if someone is writing the same content to the same place.
func (s *fileStore) probe() error {
	unlock, err := s.disk.Lock(s.sidecar(".lock"), false)
	if errors.Is(err, ErrInUse) {
		return fmt.Errorf("%s: %w", s.dir, ErrInUse)
	}
	if err != nil {
		// Not there, or not to be had: the first write will tell.
		return nil
	}
	return unlock(false)
}

// Lock takes the lock, if it is not held, before anything is written.
func (s *fileStore) lock() error {
	if s.locked.Load() {
		return nil
	}
	s.lockMu.Lock()
	defer s.lockMu.Unlock()
	if s.unlock != nil {
		return nil
	}
	unlock, err := s.disk.Lock(s.sidecar(".lock"), true)
	if err != nil {
		return fmt.Errorf("write to %s: %w", s.dir, err)
	}
	s.unlock = unlock
	s.locked.Store(true)
	return nil
}

// release gives the lock back.
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
		return nil // someone took the directory away, and the lock with it
	}
	return err
}
