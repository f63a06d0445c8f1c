//go:build !unix

package storage

import (
	"io/fs"
	"os"
	"path/filepath"
)

func (d *rootDisk) Stat(name string) (FileInfo, error) {
	info, err := d.root.Stat(name)
	if err != nil {
		return FileInfo{}, d.named(name, err)
	}
	return infoOf(info), nil
}

func (f *rootFile) Stat() (FileInfo, error) {
	info, err := f.File.Stat()
	if err != nil {
		return FileInfo{}, err
	}
	return infoOf(info), nil
}

func infoOf(info fs.FileInfo) FileInfo {
	return FileInfo{
		Stamp:   Stamp{Size: info.Size(), Mtime: info.ModTime().UnixNano()},
		Regular: info.Mode().IsRegular(),
		Dense:   true,
	}
}

// noWait is nothing that this system needs.
const noWait = 0

// openAnywhere opens a regular file to be read, wherever symbolic links lead.
func (d *rootDisk) openAnywhere(name string) (*os.File, error) {
	f, err := os.Open(filepath.Join(d.root.Name(), name))
	if err != nil {
		return nil, err
	}
	return regular(f)
}

// openDir opens a directory to be listed, wherever symbolic links lead.
func (d *rootDisk) openDir(name string) (*os.File, error) {
	return os.Open(filepath.Join(d.root.Name(), name))
}

// linkAt gives a regular file another name.
func linkAt(from *os.File, name string, to *os.File, as string) error {
	name = filepath.Join(from.Name(), name)
	if info, err := os.Lstat(name); err != nil {
		return err
	} else if !info.Mode().IsRegular() {
		return errNotRegular
	}
	return os.Link(name, filepath.Join(to.Name(), as))
}

// SyncDir does nothing: a directory cannot be synced here, and a new name needs no such care.
func (d *rootDisk) SyncDir(string) error { return nil }

// notDirectory reports whether a part of a path that should be a directory is not one. Here that is
// fs.ErrNotExist.
func notDirectory(error) bool { return false }

// refused reports whether a file system does not take a name. What this system forbids is mapped before.
func refused(error) bool { return false }
