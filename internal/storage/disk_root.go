package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// rootDisk is the directory of a real file system.
type rootDisk struct {
	root *os.Root
	self *os.File // the directory itself
}

func openRoot(dir string) (Disk, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	self, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &rootDisk{root, self}, nil
}

func (d *rootDisk) Open(name string, flag int) (DiskFile, error) {
	f, err := d.root.OpenFile(name, flag, 0o666)
	if err != nil {
		return nil, d.named(name, err)
	}
	return &rootFile{File: f}, nil
}

func (d *rootDisk) MkdirAll(name string) error {
	return d.named(name, d.root.MkdirAll(name, 0o777))
}

func (d *rootDisk) Rename(from, to string) error {
	if err := d.root.Rename(from, to); err != nil {
		return fmt.Errorf("in %s: %w", d.root.Name(), err)
	}
	return nil
}

func (d *rootDisk) Remove(name string) error { return d.named(name, d.root.Remove(name)) }

func (d *rootDisk) Close() error { return errors.Join(d.self.Close(), d.root.Close()) }

// named puts the whole path into an error: an os.Root knows only the part below it.
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
