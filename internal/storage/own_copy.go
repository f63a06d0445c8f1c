package storage

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// A sharedFile is the error of own for a file that is a symbolic link or has other hard links, as info describes it.
type sharedFile struct {
	file int
	info FileInfo
}

func (e *sharedFile) Error() string { return errShared.Error() }
func (e *sharedFile) Unwrap() error { return errShared }

// copyShared calls do, which calls own, until own returns no *sharedFile, and replaces each such file with a copy. The caller does
// not hold s.mu.
func (s *fileStore) copyShared(do func() error) error {
	for {
		err := do()
		var shared *sharedFile
		if !errors.As(err, &shared) {
			return err
		}
		if err := s.copyOwn(shared); err != nil {
			return err
		}
	}
}

// copyOwn replaces a file with a copy, which is ready then. Because the file may be large, it holds s.mu only at the beginning and at
// the end. Meanwhile the file is read, but this store does not write to it, since it is not ready. copyOwn returns errShared if another
// program replaced the file meanwhile.
func (s *fileStore) copyOwn(shared *sharedFile) (err error) {
	s.copyMu.Lock()
	defer s.copyMu.Unlock()
	f, size := &s.files[shared.file], shared.info.Size
	s.mu.RLock()
	name, closed, ready := f.name, s.closed, f.ready.Load()
	s.mu.RUnlock()
	switch {
	case closed:
		return ErrClosed
	case ready: // another caller has replaced it
		return nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: replace it with a copy: %w", filepath.Join(s.dir, name), err)
		}
	}()
	if err := flushed(s.syncFile(shared.file)); err != nil {
		return err
	}
	from, err := s.openRoomy(name, os.O_RDONLY)
	if absent(err) {
		return errShared
	} else if err != nil {
		return err
	}
	defer from.Close()
	if info, err := from.Stat(); err != nil {
		return err
	} else if info.ID != shared.info.ID {
		return errShared
	}
	tmp := filepath.Join(filepath.Dir(name), s.sidecar(".copy"))
	to, err := s.openRoomy(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if absent(err) { // its directory was removed
		return errShared
	} else if err != nil {
		return err
	}
	buf := make([]byte, maxStep)
	for off := int64(0); off < size && err == nil; {
		if s.stopped.Load() || s.closing.Load() {
			err = ErrClosed
			break
		}
		off, _, err = copyPart(from, to, buf, off, size, true)
	}
	if err == nil || err == io.EOF {
		err = to.Truncate(size)
	}
	if err == nil {
		err = to.Sync()
	}
	if err = errors.Join(err, to.Close()); err == nil {
		err = s.replaceWith(tmp, name, shared)
	}
	if err == nil {
		return nil
	}
	return errors.Join(err, removeIfPresent(s.disk, tmp))
}

// replaceWith replaces a file, of which tmp is a copy, if it is still the same one and not ready.
func (s *fileStore) replaceWith(tmp, name string, shared *sharedFile) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	f := &s.files[shared.file]
	now, err := s.disk.Stat(name)
	if absent(err) || err == nil && (now.ID != shared.info.ID || f.name != name || !f.here || f.ready.Load()) {
		return errShared
	} else if err != nil {
		return err
	}
	s.handles.drop(shared.file)
	if err := s.disk.Rename(tmp, name); err != nil {
		return err
	}
	f.copies.Add(1)
	s.madeName(name)
	info, err := s.disk.Stat(name)
	if err != nil {
		return err
	}
	f.mu.Lock()
	if f.left != now.Stamp || now.Stamp != shared.info.Stamp {
		f.meddled.Store(true)
	}
	f.left, f.twin = info.Stamp, false
	f.mu.Unlock()
	return s.owned(shared.file, info, true)
}

// flushed returns the error of syncing a file that is about to be copied, since what is in the system's cache alone may seem to be a
// hole. A file that is gone, or cannot be opened for that, is no error.
func flushed(err error) error {
	if absent(err) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}

// copyPart copies the next part of a file, at or after off and before end. It returns the offset of the part after that and how many
// bytes it copied. If no data is left before end, it returns io.EOF. With holes, it leaves out the holes of the file.
func copyPart(from, to DiskFile, buf []byte, off, end int64, holes bool) (next int64, n int, err error) {
	start, stop := off, end
	if holes {
		if start, stop, err = from.NextData(off, end); err != nil {
			return 0, 0, err
		}
	}
	if start >= end {
		return end, 0, io.EOF
	}
	b := buf[:min(int64(len(buf)), min(stop, end)-start)]
	n, err = from.ReadAt(b, start)
	if n < len(b) && !errors.Is(err, io.EOF) {
		return 0, 0, cmp.Or(err, io.ErrUnexpectedEOF)
	}
	if n == 0 {
		return end, 0, io.EOF // another program has truncated the file
	}
	if _, err := to.WriteAt(b[:n], start); err != nil {
		return 0, 0, err
	}
	return start + int64(n), n, nil
}
