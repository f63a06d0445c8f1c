package storage

import (
	"errors"
	"io/fs"
	"path/filepath"
)

// absentDirs are directories that files were not found in, and why they are not there; nil if they are. Of thousands of files
// in one that is not there, only the first is looked for.
type absentDirs map[string]error

// stat is Disk.Stat.
func (d absentDirs) stat(disk Disk, name string) (FileInfo, error) {
	dir := filepath.Dir(name)
	err, known := d[dir]
	if err != nil {
		return FileInfo{}, err
	}
	info, err := disk.Stat(name)
	if absent(err) && !known {
		if _, d[dir] = disk.Stat(dir); !absent(d[dir]) {
			d[dir] = nil
		}
	}
	return info, err
}

// absent reports whether err means that a file is not there. A file in the place of a directory on the way to
// it means the same, until something is to be written.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) || notDirectory(err) }

// refusedName is the error of a name that is said not to be there where it is to be made. Some file systems, such as exFAT by
// FUSE, say so of a name that they do not take.
type refusedName struct{ error }

func (e refusedName) Unwrap() error { return e.error }

func notMade(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return refusedName{err}
	}
	return err
}

// notTaken reports whether a file system does not take a name that was to be made.
func notTaken(err error) bool {
	_, ok := errors.AsType[refusedName](err)
	return ok || refused(err)
}

// missing reports whether err means that a file is not there, or cannot be, under its name.
func missing(err error) bool { return absent(err) || refused(err) }
