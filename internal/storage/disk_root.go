package storage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// rootDisk is the directory of a real file system.
type rootDisk struct {
	*sharedDir
	closed atomic.Bool // nothing is changed any more: the directory may stay open for others

	claims   *Claims
	joining  sync.Mutex // guards claimant
	claimant *claimant  // nil before the first Claim
}

// openRoot opens a directory whose files are claimed in r.
func (r *Claims) openRoot(dir string) (Disk, error) {
	d, err := r.openShared(dir)
	if err != nil {
		return nil, err
	}
	return &rootDisk{sharedDir: d, claims: r}, nil
}

// writable returns the root, in which files may be changed until Close.
func (d *rootDisk) writable() (*os.Root, error) {
	if d.closed.Load() {
		return nil, fs.ErrClosed
	}
	return d.root, nil
}

func (d *rootDisk) Open(name string, flag int) (DiskFile, error) {
	open := d.openIn
	if flag == os.O_RDONLY {
		open = func(name string, _ int) (*os.File, error) { return d.openAnywhere(name) }
	}
	f, err := open(name, flag)
	if err != nil {
		return nil, d.named(name, err)
	}
	return &rootFile{File: f}, nil
}

// openIn opens a regular file that is within the directory.
func (d *rootDisk) openIn(name string, flag int) (*os.File, error) {
	root, err := d.writable()
	if err != nil {
		return nil, err
	}
	f, err := root.OpenFile(name, flag|noWait, 0o666)
	if err != nil {
		return nil, err
	}
	return regular(f)
}

var errNotRegular = errors.New("not a regular file")

// OpenAtOnce opens a file for reading. It does not wait for the other end of a pipe.
func OpenAtOnce(path string) (*os.File, error) { return os.OpenFile(path, os.O_RDONLY|noWait, 0) }

// regular returns f, or closes it and returns an error if it is not a regular file.
func regular(f *os.File) (*os.File, error) {
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: f.Name(), Err: errNotRegular}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (d *rootDisk) MkdirAll(name string) error {
	root, err := d.writable()
	if err != nil {
		return err
	}
	return d.named(name, root.MkdirAll(name, 0o777))
}

func (d *rootDisk) Listed(name string) (bool, error) {
	dir, err := d.openDir(filepath.Dir(name))
	if err != nil {
		return false, err
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(1024)
		if slices.Contains(names, filepath.Base(name)) {
			return true, nil
		}
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
}

func (d *rootDisk) Rename(from, to string) error {
	root, err := d.writable()
	if err == nil {
		err = root.Rename(from, to)
	}
	if err != nil {
		return fmt.Errorf("in %s: %w", d.root.Name(), err)
	}
	return nil
}

func (d *rootDisk) Remove(name string) error {
	root, err := d.writable()
	if err != nil {
		return err
	}
	return d.named(name, root.Remove(name))
}

func (d *rootDisk) RemoveDir(name string) error {
	info, err := d.Stat(name)
	if err != nil {
		return err
	}
	if d.claims.isOpen(sharedID{FileID: info.ID, whole: filepath.Join(d.path(), name)}) {
		return &fs.PathError{Op: "remove", Path: filepath.Join(d.root.Name(), name), Err: ErrInUse}
	}
	if _, err := d.Readlink(name); err == nil || info.Regular { // which Remove would remove, too
		return &fs.PathError{Op: "remove", Path: filepath.Join(d.root.Name(), name), Err: syscall.ENOTDIR}
	}
	return d.Remove(name)
}

func (d *rootDisk) Link(name string, to Disk, as string) error {
	other, ok := to.(*rootDisk)
	if !ok {
		return errors.ErrUnsupported
	}
	from, err := d.root.OpenFile(filepath.Dir(name), os.O_RDONLY|noWait, 0)
	if err != nil {
		return err
	}
	defer from.Close()
	root, err := other.writable()
	if err != nil {
		return err
	}
	dir, err := root.OpenFile(filepath.Dir(as), os.O_RDONLY|noWait, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := linkAt(from, filepath.Base(name), dir, filepath.Base(as)); err != nil {
		return &os.LinkError{Op: "link", Old: filepath.Join(d.root.Name(), name), New: filepath.Join(other.root.Name(), as), Err: err}
	}
	return nil
}

func (d *rootDisk) Symlink(target, name string) error {
	root, err := d.writable()
	if err == nil {
		err = root.Symlink(target, name)
	}
	if err != nil {
		return fmt.Errorf("in %s: %w", d.root.Name(), err)
	}
	return nil
}

func (d *rootDisk) SetMtime(name string, mtime int64) error {
	root, err := d.writable()
	if err != nil {
		return err
	}
	at := time.Unix(0, mtime)
	return d.named(name, root.Chtimes(name, at, at))
}

func (d *rootDisk) Reopen() (Disk, error) {
	again, err := d.claims.openShared(d.root.Name())
	if err != nil {
		return nil, err
	}
	if _, err := d.Stat("."); err == nil && again.FileID == d.FileID {
		return nil, d.claims.closeShared(again)
	}
	return &rootDisk{sharedDir: again, claims: d.claims}, nil
}

func (d *rootDisk) Close() error {
	if d.closed.Swap(true) {
		return fs.ErrClosed
	}
	d.leave()
	return d.claims.closeShared(d.sharedDir)
}

// named puts the whole path into an error: an os.Root reports only the part below it.
func (d *rootDisk) named(name string, err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		return &fs.PathError{Op: e.Op, Path: filepath.Join(d.root.Name(), name), Err: e.Err}
	}
	return err
}

// rootFile is an open file under a rootDisk.
type rootFile struct {
	*os.File
	vectors
}
