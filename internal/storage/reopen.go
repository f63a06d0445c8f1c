package storage

// ReadAt opens the directory again if its handle is of no use any more, and then reads once more.
func (s *fileStore) ReadAt(p []byte, off int64) (n int, err error) {
	before := s.reopened.Load()
	n, err = s.readAt(p, off)
	if err == nil || Unwritten(err) || !s.reopen() && s.reopened.Load() == before {
		return n, err
	}
	return s.readAt(p, off)
}

// reopen opens the directory by its path if it cannot be examined any more. That is so after the server of a network share or of FUSE was
// started again, or a cable was loose: the directory is mounted anew then, and no handle of the time before is of any use. reopen keeps
// the old directory unless the new one has a file of the content as it was left, since what a disk is mounted on may be there too. It
// reports whether the store has the new one. The caller does not hold s.mu.
func (s *fileStore) reopen() bool {
	// If one of these is held, a later read tries again.
	if !s.resumeMu.TryLock() {
		return false
	}
	defer s.resumeMu.Unlock()
	if !s.copyMu.TryLock() {
		return false
	}
	defer s.copyMu.Unlock()
	s.mu.RLock()
	old, dir := s.disk, s.dir
	_, real := old.(*rootDisk)
	usable := !s.closed && s.move == nil && real
	_, err := old.Stat(".")
	s.mu.RUnlock()
	if !usable || err == nil {
		return false
	}
	disk, err := s.claims.openRoot(dir)
	if err != nil {
		return false
	}
	found := s.findLeft(disk)
	if len(found) == 0 || !s.change(old, disk, found) {
		disk.Close()
		return false
	}
	s.reopened.Add(1)
	s.log.Info("the directory was mounted anew and is open again", "dir", dir)
	return true
}

// findLeft returns those files that are on the disk as they were left. It gives up if none of the first files is.
func (s *fileStore) findLeft(disk Disk) map[int]FileInfo {
	found := make(map[int]FileInfo)
	none := make(absentDirs)
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i, missed := 0, 0; i < len(s.files) && missed < maxClaims; i++ {
		left := s.leftAs(i)
		if left == (Stamp{}) || !s.files[i].here {
			continue
		}
		if s.closed || s.stopped.Load() || s.closing.Load() {
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

// change has the store use disk instead of old, and claims the files there, of which found are as they were left. The pieces of files that
// were written since the last sync are in doubt, because what was written may be lost even if size and modification time are not.
func (s *fileStore) change(old, disk Disk, found map[int]FileInfo) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.move != nil || s.disk != old {
		return false
	}
	s.dirtyMu.Lock()
	unsynced := s.syncFailed != nil
	s.dirtyMu.Unlock()
	was := s.handles
	s.disk, s.handles = disk, newHandles(&s.claims.idle, s.open)
	for i := range s.files {
		f := &s.files[i]
		f.mu.Lock()
		if info, ok := found[i]; ok && info.Stamp == f.left {
			f.id, f.links = info.ID, info.Links
		} else {
			f.id = FileID{}
		}
		if f.dirty || f.written && unsynced {
			f.meddled.Store(true)
		}
		f.ready.Store(false)
		f.mu.Unlock()
	}
	var err error
	if s.wanted != nil {
		_, err = s.claim(s.wanted)
	}
	if err == nil {
		_, err = s.claimLinks()
	}
	if err != nil {
		s.log.Warn("the directory cannot be used again", "dir", s.dir, "err", err)
		s.handles.closeAll()
		s.disk, s.handles = old, was
		return false
	}
	locked := s.locked.Load()
	was.closeAll()
	s.release()
	old.Close()
	if root, err := disk.Stat("."); err == nil {
		s.place.Store(placeOf(s.dir, root))
	}
	if locked {
		if err := s.lock(); err != nil {
			s.log.Warn("the lock is lost", "err", err)
		}
	}
	return true
}
