package storage

import (
	"errors"
	"io/fs"
	"maps"
)

// manyFiles is the number of files and directories above which one sync of the whole file system is less work.
const manyFiles = 64

// Sync syncs the files that were written since the last Sync, and the directories in which names were made. Close does not wait
// for a Sync in progress, because a slow disk must not delay the end of a context.
func (s *fileStore) Sync() error {
	s.resumeMu.Lock()
	defer s.resumeMu.Unlock()
	return s.syncDirty()
}

// syncDirty is Sync. The caller holds s.resumeMu.
func (s *fileStore) syncDirty() error {
	files, dirs, together, err := s.takeDirty()
	if err != nil {
		return err
	}
	err, lost := s.sync(files, dirs, together), s.handles.takeError()
	if errors.Is(err, fs.ErrClosed) {
		err = ErrClosed // Close does not wait for this
	}
	if lost == nil && (Exhausted(err) || errors.Is(err, ErrClosed)) { // some files were not opened, but no write is lost
		s.remainDirty(files, dirs)
		return err
	}
	err = errors.Join(err, lost)
	if err != nil && !errors.Is(err, ErrClosed) {
		s.dirtyMu.Lock()
		s.syncFailed = err
		s.dirtyMu.Unlock()
	}
	return err
}

// markDirty has the next Sync sync file i. The caller holds s.files[i].mu.
func (s *fileStore) markDirty(i int) {
	if f := &s.files[i]; !f.dirty {
		f.dirty = true
		s.dirtyMu.Lock()
		s.dirtyFiles = append(s.dirtyFiles, i)
		s.dirtyMu.Unlock()
	}
}

// remainDirty has the next Sync sync these files and directories again.
func (s *fileStore) remainDirty(files []int, dirs map[string]struct{}) {
	for _, i := range files {
		s.files[i].mu.Lock()
		s.markDirty(i)
		s.files[i].mu.Unlock()
	}
	s.dirtyMu.Lock()
	defer s.dirtyMu.Unlock()
	maps.Copy(s.dirtyDirs, dirs)
}

// takeDirty returns the files and directories that a Sync has to sync, and whether all of the files lie in the file system of the
// directory.
func (s *fileStore) takeDirty() (files []int, dirs map[string]struct{}, together bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, nil, false, ErrClosed
	}
	root, err := s.disk.Stat(".") // first: what is taken has to be synced
	if err != nil {
		return nil, nil, false, err
	}
	s.dirtyMu.Lock()
	files, dirs, err = s.dirtyFiles, s.dirtyDirs, s.syncFailed
	s.dirtyFiles, s.dirtyDirs = nil, make(map[string]struct{})
	s.dirtyMu.Unlock()
	if err != nil || len(files) == 0 && len(dirs) == 0 {
		return nil, nil, false, err
	}
	together = true
	for _, i := range files {
		// Cleared before the sync: a write from here on makes the file dirty again.
		f := &s.files[i]
		f.mu.Lock()
		f.dirty = false
		together = together && (i == s.edgesFile() || f.id.Dev == root.ID.Dev)
		f.mu.Unlock()
	}
	return files, dirs, together, nil
}

func (s *fileStore) sync(files []int, dirs map[string]struct{}, together bool) error {
	if len(files)+len(dirs) > manyFiles && together {
		if done, err := s.disk.SyncAll(); done || err != nil {
			return err
		}
	}
	for _, i := range files {
		if s.stopped.Load() {
			return ErrClosed
		}
		if err := s.syncFile(i); err != nil && !absent(err) {
			return err
		}
	}
	for dir := range dirs {
		if s.stopped.Load() {
			return ErrClosed
		}
		if err := s.handles.makeRoom(func() error { return s.disk.SyncDir(dir) }); err != nil && !absent(err) {
			return err
		}
	}
	return nil
}

func (s *fileStore) syncFile(i int) error {
	s.mu.RLock() // guards the name of the file
	h, err := s.openToSync(i)
	s.mu.RUnlock()
	return s.syncOpened(h, err)
}

// syncHeld is syncFile for a caller that holds s.mu.
func (s *fileStore) syncHeld(i int) error { return s.syncOpened(s.openToSync(i)) }

// syncOpened syncs a file by a handle, which it puts back, unless err says that there is none.
func (s *fileStore) syncOpened(h *handle, err error) error {
	if err != nil {
		return err
	}
	defer s.handles.put(h)
	return h.f.Sync()
}

// openToSync returns a handle of file i. The caller holds s.mu.
func (s *fileStore) openToSync(i int) (*handle, error) {
	h, err := s.handles.get(i, true, false)
	if err != nil && !absent(err) && !Exhausted(err) {
		h, err = s.handles.get(i, false, false) // a file that was found and cannot be opened for writing
	}
	return h, err
}
