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

// identityAt returns zero: a directory is opened to find out its identity.
func identityAt(string) FileID { return FileID{} }

func infoOf(info fs.FileInfo) FileInfo {
	return FileInfo{
		Stamp:   stampOf(info.Size(), info.ModTime().UnixNano()),
		Regular: info.Mode().IsRegular(),
		Dense:   true,
	}
}

func (d *rootDisk) Readlink(name string) (string, error) {
	target, err := d.root.Readlink(name)
	return target, d.named(name, err)
}

// noWait is the open flag that keeps an open from blocking. This system needs none.
const noWait = 0

// openAnywhere opens a regular file for reading. It follows symbolic links out of the directory.
func (d *rootDisk) openAnywhere(name string) (*os.File, error) {
	f, err := os.Open(filepath.Join(d.root.Name(), name))
	if err != nil {
		return nil, err
	}
	return regular(f)
}

// openDir opens a directory for listing. It follows symbolic links out of the Disk's directory.
func (d *rootDisk) openDir(name string) (*os.File, error) {
	return os.Open(filepath.Join(d.root.Name(), name))
}

// linkAt makes a hard link to a regular file. It does not follow symbolic links.
func linkAt(from *os.File, name string, to *os.File, as string) error {
	name = filepath.Join(from.Name(), name)
	if info, err := os.Lstat(name); err != nil {
		return err
	} else if !info.Mode().IsRegular() {
		return errNotRegular
	}
	return os.Link(name, filepath.Join(to.Name(), as))
}

// SyncDir does nothing: this system cannot sync a directory, and a new name does not need it.
func (d *rootDisk) SyncDir(string) error { return nil }

// notDirectory reports whether err means that a parent directory in a path is not a directory. On this system that error is
// fs.ErrNotExist.
func notDirectory(error) bool { return false }

// refused reports whether err means that the file system does not allow a name. Names that this system forbids are mapped to
// others before they get here.
func refused(error) bool { return false }
