package storage

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// A network share or FUSE whose server was started again, and a disk that was plugged in again, get a new mount, and no handle of
// the time before is of use any more. So a directory that fails is opened by its path again. Then at its path may also be what
// the disk was mounted on, which is another directory: nothing is read or written there.

const (
	reopenEvery  = time.Second // between two attempts to open the directory again
	reclaimEvery = time.Minute // after one that failed because the files could not be claimed
)

func (s *fileStore) ReadAt(p []byte, off int64) (n int, err error) {
	mount := s.mount.Load()
	n, err = s.readAt(p, off)
	if err != nil && !Unwritten(err) && s.reopen(mount, false) {
		return s.readAt(p, off)
	}
	return n, err
}

// reopen opens the directory again if it was mounted again, and reports whether that was done since the given mount. The
// directory is the right one if a file of the content is there as it was left. Of files that are not, and of those that may not
// have been synced before, nothing is read until Refresh accepts them. If wait is set, reopen waits for a sync and for the copy
// of a file, and tries at each call, since an error of a write ends the download. The caller does not hold s.mu.
func (s *fileStore) reopen(mount int32, wait bool) bool {
	for _, mu := range []*sync.Mutex{&s.reopenMu, &s.resumeMu, &s.copyMu} {
		if wait {
			mu.Lock()
		} else if !mu.TryLock() {
			return s.mount.Load() != mount
		}
		defer mu.Unlock()
	}
	now := time.Now()
	if s.mount.Load() != mount || !wait && now.Before(s.reopenAt) {
		return s.mount.Load() != mount
	}
	s.reopenAt = now.Add(reopenEvery)
	s.mu.RLock()
	was, usable := s.disk, !s.closed && s.move == nil
	s.mu.RUnlock()
	if !usable {
		return false
	}
	disk, err := was.Reopen()
	if err != nil || disk == nil {
		return false
	}
	if found := s.findLeft(disk); len(found) > 0 {
		err := s.use(disk, found)
		if err == nil {
			s.log.Info("the directory was mounted again and is open again", "dir", s.dir)
			was.Close()
			s.mount.Add(1)
			return true
		}
		s.log.Warn("the directory was mounted again and cannot be used", "dir", s.dir, "err", err)
		s.reopenAt = now.Add(reclaimEvery)
	}
	disk.Close()
	return false
}

// findLeft returns those files that are on disk as they were left. It gives up if none of the first files is.
func (s *fileStore) findLeft(disk Disk) map[int]FileInfo {
	found := make(map[int]FileInfo)
	none := make(absentDirs)
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i, missed := 0, 0; i < len(s.files) && missed < maxClaims; i++ {
		left := s.leftAs(i)
		if left.Size == 0 || !s.files[i].here {
			continue
		}
		if s.stopped.Load() || s.closing.Load() {
			return nil
		}
		if info, err := none.stat(disk, s.files[i].name); err == nil && info.Regular && info.Stamp == left {
			found[i] = info
		} else if len(found) == 0 {
			missed++
		}
	}
	return found
}

// use has the store use disk, on which it found files as they were left. If these cannot be claimed and locked there, everything
// stays as it was.
func (s *fileStore) use(disk Disk, found map[int]FileInfo) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.move != nil {
		return ErrClosed
	}
	s.lockMu.Lock()
	defer s.lockMu.Unlock()
	was, handles, folding := s.disk, s.handles, s.folding
	before := make([]FileInfo, len(s.files)) // ID and Links
	for i := range s.files {
		f := &s.files[i]
		before[i] = FileInfo{ID: f.id, Links: f.links}
		f.id, f.links = found[i].ID, found[i].Links
	}
	s.disk, s.handles, s.folding = disk, newHandles(&s.claims.idle, s.open), 0
	unlock := s.unlock
	if err = s.claimAgain(); err == nil && unlock != nil {
		unlock, err = disk.Lock(s.sidecar(".lock"), true)
	}
	if err != nil {
		err = errors.Join(err, s.handles.closeAll())
		s.disk, s.handles, s.folding = was, handles, folding
		for i := range s.files {
			s.files[i].id, s.files[i].links = before[i].ID, before[i].Links
		}
		return err
	}
	if s.unlock != nil {
		s.unlock(false) // its file is that of the new lock
		s.unlock = unlock
	}
	s.dirtyMu.Lock()
	lost := s.syncFailed != nil
	s.syncFailed = nil
	s.dirtyMu.Unlock()
	for i := range s.files {
		f := &s.files[i]
		f.mu.Lock()
		if f.left.Size > 0 && (found[i].Stamp != f.left || f.dirty || !f.durable || lost && f.written) {
			f.meddled.Store(true)
			f.distrusted.Store(true)
		}
		f.ready.Store(false)
		f.mu.Unlock()
		f.copies.Add(1) // a map shows the file of the old mount
	}
	handles.closeAll()
	return nil
}

// trusted returns ErrChanged if nothing is to be read from file i before Refresh.
func (s *fileStore) trusted(i int) error {
	if s.files[i].distrusted.Load() {
		return fmt.Errorf("%s: %w, or lost, while its directory was not mounted", s.path(i), ErrChanged)
	}
	return nil
}

func (s *fileStore) Rest() error { return s.Close() }

// Wake opens the directory and claims the files again. It fails with ErrInUse if another download has claimed wanted ones
// meanwhile. The stamps of the files are kept, so that Changed finds what other programs changed during the rest.
func (s *fileStore) Wake() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		return nil
	}
	disk, err := s.claims.openRoot(s.dir)
	if err != nil {
		return err
	}
	s.disk, s.handles = disk, newHandles(&s.claims.idle, s.open)
	if err := s.claimAgain(); err != nil {
		return errors.Join(err, disk.Close())
	}
	s.closed = false
	return s.closeKept()
}

// claimAgain claims everything on a Disk of the directory that was opened later. The caller holds s.mu for writing.
func (s *fileStore) claimAgain() error {
	if s.wanted == nil {
		return nil
	}
	_, err := s.claim(s.wanted)
	if err == nil {
		_, err = s.claimLinks()
	}
	return err
}
