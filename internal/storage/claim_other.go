//go:build !linux

package storage

import (
	"errors"
	"io/fs"
	"os"
)

// This system has no lock that needs no file, ends with the process and identifies its holder. So what other processes and other
// clients have claimed is not known.

type (
	lockTable struct{}
	ownLocks  struct{}
)

func (c *claimant) lock([]Claim) (undo func(), err error) { return func() {}, nil }

func (c *claimant) unlock() {}

func (e *claimDir) locked(*claimant, []Claim, func(string) (string, bool)) error { return nil }

// openBelow opens a directory within this one.
func (d *rootDisk) openBelow(p string) (*os.File, error) {
	f, err := d.root.OpenFile(p, os.O_RDONLY|noWait, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
