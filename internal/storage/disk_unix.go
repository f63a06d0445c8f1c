//go:build unix

package storage

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Stat makes one system call and opens nothing, because it is called for each block that is served. Only for a path that is too long for
// one call it opens a few directories on the way: to open all of them, as an os.Root does, takes up to a millisecond.
func (d *rootDisk) Stat(name string) (FileInfo, error) {
	if !d.hold() {
		return FileInfo{}, fs.ErrClosed
	}
	defer d.give()
	var st unix.Stat_t
	err := ignoringEINTR(func() error { return unix.Fstatat(int(d.self.Fd()), name, &st, 0) })
	if err == unix.ENAMETOOLONG {
		err = statInSteps(int(d.self.Fd()), name, &st)
	}
	if err != nil {
		return FileInfo{}, &fs.PathError{Op: "stat", Path: filepath.Join(d.root.Name(), name), Err: err}
	}
	return infoOf(&st), nil
}

// statInSteps describes the file at a path below an open directory. The path may be too long for the system.
func statInSteps(dir int, path string, st *unix.Stat_t) error {
	if len(path) < unix.PathMax {
		return ignoringEINTR(func() error { return unix.Fstatat(dir, path, st, 0) })
	}
	first := strings.LastIndexByte(path[:unix.PathMax], '/')
	if first < 0 {
		return unix.ENAMETOOLONG
	}
	var next int
	err := ignoringEINTR(func() (err error) {
		next, err = unix.Openat(dir, path[:first], unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(next)
	return statInSteps(next, path[first+1:], st)
}

func (f *rootFile) Stat() (FileInfo, error) {
	var st unix.Stat_t
	if err := ignoringEINTR(func() error { return unix.Fstat(int(f.Fd()), &st) }); err != nil {
		return FileInfo{}, &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return infoOf(&st), nil
}

func infoOf(st *unix.Stat_t) FileInfo {
	return FileInfo{
		Stamp:   stampOf(st.Size, unix.TimespecToNsec(st.Mtim)),
		ID:      FileID{uint64(st.Dev), uint64(st.Ino)},
		Links:   int(min(uint64(st.Nlink), 1<<16)),
		Regular: st.Mode&unix.S_IFMT == unix.S_IFREG,
		Gone:    st.Nlink == 0,
		Dense:   int64(st.Blocks)*512 >= st.Size,
	}
}

// identityOf returns the identity of an open directory, or zero if it has none.
func identityOf(f *os.File) FileID {
	var st unix.Stat_t
	if err := ignoringEINTR(func() error { return unix.Fstat(int(f.Fd()), &st) }); err != nil {
		return FileID{}
	}
	return infoOf(&st).ID
}

// identityAt returns the identity of the directory at a path, or zero if it has none.
func identityAt(dir string) FileID {
	var st unix.Stat_t
	if err := ignoringEINTR(func() error { return unix.Stat(dir, &st) }); err != nil {
		return FileID{}
	}
	return infoOf(&st).ID
}

// noWait is the open flag that keeps an open from waiting for the other end of a pipe.
const noWait = unix.O_NONBLOCK

// openAnywhere opens a regular file for reading. It follows symbolic links out of the directory.
func (d *rootDisk) openAnywhere(name string) (*os.File, error) {
	if !d.hold() {
		return nil, fs.ErrClosed
	}
	defer d.give()
	var fd int
	err := ignoringEINTR(func() (err error) {
		fd, err = unix.Openat(int(d.self.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC|noWait, 0)
		return err
	})
	if err == unix.ENAMETOOLONG {
		return d.openIn(name, os.O_RDONLY) // walks the path element by element
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return regular(os.NewFile(uintptr(fd), filepath.Join(d.root.Name(), name)))
}

// Readlink makes one system call, because a torrent may have thousands of links in very deep directories.
func (d *rootDisk) Readlink(name string) (string, error) {
	if !d.hold() {
		return "", fs.ErrClosed
	}
	defer d.give()
	for b := make([]byte, 128); ; b = make([]byte, 2*len(b)) {
		n := 0
		err := ignoringEINTR(func() (err error) {
			n, err = unix.Readlinkat(int(d.self.Fd()), name, b)
			return err
		})
		switch {
		case err == unix.ENAMETOOLONG:
			target, err := d.root.Readlink(name) // walks the path element by element
			return target, d.named(name, err)
		case err != nil:
			return "", &fs.PathError{Op: "readlink", Path: filepath.Join(d.root.Name(), name), Err: err}
		case n < len(b):
			return string(b[:n]), nil
		}
	}
}

// openDir opens a directory for listing. It follows symbolic links out of the Disk's directory.
func (d *rootDisk) openDir(name string) (*os.File, error) {
	if !d.hold() {
		return nil, fs.ErrClosed
	}
	defer d.give()
	var fd int
	err := ignoringEINTR(func() (err error) {
		fd, err = unix.Openat(int(d.self.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(d.root.Name(), name), Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Join(d.root.Name(), name)), nil
}

// linkAt makes a hard link to a regular file. It does not follow symbolic links.
func linkAt(from *os.File, name string, to *os.File, as string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(from.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errNotRegular
	}
	return unix.Linkat(int(from.Fd()), name, int(to.Fd()), as, 0)
}

// SyncDir follows symbolic links out of the directory, because what was found may lie behind one. A directory that may not be read
// cannot be synced.
func (d *rootDisk) SyncDir(name string) error {
	f, err := d.openDir(name)
	if errors.Is(err, unix.ENAMETOOLONG) {
		f, err = d.root.OpenFile(name, os.O_RDONLY|noWait, 0) // walks the path element by element
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
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

// notDirectory reports whether err means that a parent directory in a path is not a directory.
func notDirectory(err error) bool { return errors.Is(err, unix.ENOTDIR) }

// refused reports whether err means that the file system does not allow a name.
func refused(err error) bool {
	return errors.Is(err, unix.ENAMETOOLONG) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EILSEQ)
}
