package storage

import (
	"errors"
	"io/fs"
	"path/filepath"
)

// absentDirs maps a directory in which a file was missing, or one above it, to the error of the directory's own Stat, or to nil if the
// directory exists. A directory may hold thousands of files and directories: if it does not exist, only the first of them costs a
// system call.
type absentDirs map[string]error

// stat is disk.Stat, except that it makes no system call for a name in a directory known to be absent.
func (d absentDirs) stat(disk Disk, name string) (FileInfo, error) {
	dir := filepath.Dir(name)
	if err := d.known(dir); err != nil {
		return FileInfo{}, err
	}
	info, err := disk.Stat(name)
	if absent(err) {
		d.look(disk, dir)
	}
	return info, err
}

// known returns the error for a directory that is known to be absent, because it or one above it was looked for.
func (d absentDirs) known(dir string) error {
	for {
		err, ok := d[dir]
		above := filepath.Dir(dir)
		if ok || above == dir {
			return err
		}
		dir = above
	}
}

// look finds out whether a directory exists, unless it or one above it is known not to.
func (d absentDirs) look(disk Disk, dir string) {
	above := filepath.Dir(dir)
	if _, ok := d[dir]; ok || above == dir {
		return
	}
	if d.look(disk, above); d.known(above) != nil {
		return
	}
	if _, d[dir] = disk.Stat(dir); !absent(d[dir]) {
		d[dir] = nil
	}
}

// absent reports whether err means that a file does not exist. A file in the place of one of its parent directories means the
// same, until something is to be written.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) || notDirectory(err) }

// removeIfPresent removes a file. It is no error if there is none.
func removeIfPresent(disk Disk, name string) error {
	if err := disk.Remove(name); err != nil && !absent(err) {
		return err
	}
	return nil
}

// refusedName wraps fs.ErrNotExist from creating a file or directory whose parent exists. Some file systems, such as exFAT over
// FUSE, return that error for a name that they do not allow.
type refusedName struct{ error }

func (e refusedName) Unwrap() error { return e.error }

// notMade wraps the error of creating a file in a refusedName if it is fs.ErrNotExist.
func notMade(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return refusedName{err}
	}
	return err
}

// notTaken reports whether err, from creating a file, means that the file system does not allow its name.
func notTaken(err error) bool {
	_, ok := errors.AsType[refusedName](err)
	return ok || refused(err)
}

// missing reports whether err means that a file does not exist, or cannot exist, under its name.
func missing(err error) bool { return absent(err) || refused(err) }
