//go:build unix

package torrent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// stat is one system call, without opening anything: it is asked for each block that is served.
func (d *rootDisk) stat(name string) (fileInfo, error) {
	var st unix.Stat_t
	err := ignoringEINTR(func() error { return unix.Fstatat(int(d.self.Fd()), name, &st, 0) })
	if err == unix.ENAMETOOLONG {
		// The path as a whole is too long for one call; an os.Root walks it step by step.
		f, err := d.open(name, os.O_RDONLY)
		if err != nil {
			return fileInfo{}, err
		}
		info, err := f.stat()
		return info, errors.Join(err, f.Close())
	}
	if err != nil {
		return fileInfo{}, &fs.PathError{Op: "stat", Path: filepath.Join(d.root.Name(), name), Err: err}
	}
	return infoOf(&st), nil
}

func (f *rootFile) stat() (fileInfo, error) {
	var st unix.Stat_t
	if err := ignoringEINTR(func() error { return unix.Fstat(int(f.Fd()), &st) }); err != nil {
		return fileInfo{}, &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return infoOf(&st), nil
}

func infoOf(st *unix.Stat_t) fileInfo {
	return fileInfo{
		stamp: stamp{
			size:  st.Size,
			mtime: unix.TimespecToNsec(st.Mtim),
			dev:   uint64(st.Dev),
			inode: uint64(st.Ino),
		},
		regular: st.Mode&unix.S_IFMT == unix.S_IFREG,
		gone:    st.Nlink == 0,
		dense:   int64(st.Blocks)*512 >= st.Size,
	}
}

func (d *rootDisk) syncDir(name string) error {
	f, err := d.root.Open(name)
	if err != nil {
		return d.named(name, err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}

func ignoringEINTR(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// notDirectory tells whether a part of a path that should be a directory is not one.
func notDirectory(err error) bool { return errors.Is(err, unix.ENOTDIR) }
