//go:build !unix

package torrent

import (
	"io/fs"
)

func (d *rootDisk) stat(name string) (fileInfo, error) {
	info, err := d.root.Stat(name)
	if err != nil {
		return fileInfo{}, d.named(name, err)
	}
	return infoOf(info), nil
}

func (f *rootFile) stat() (fileInfo, error) {
	info, err := f.File.Stat()
	if err != nil {
		return fileInfo{}, err
	}
	return infoOf(info), nil
}

func infoOf(info fs.FileInfo) fileInfo {
	return fileInfo{
		stamp:   stamp{size: info.Size(), mtime: info.ModTime().UnixNano()},
		regular: info.Mode().IsRegular(),
		dense:   true,
	}
}

// syncDir does nothing: a directory cannot be synced here, and a new name needs no such care.
func (d *rootDisk) syncDir(string) error { return nil }

// notDirectory tells whether a part of a path that should be a directory is not one; here that is
// fs.ErrNotExist.
func notDirectory(error) bool { return false }
