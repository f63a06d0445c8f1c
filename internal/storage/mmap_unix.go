//go:build unix

package storage

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

func (f *rootFile) Mmap(n int) ([]byte, func() error, error) {
	b, err := unix.Mmap(int(f.Fd()), 0, n, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, &fs.PathError{Op: "mmap", Path: f.Name(), Err: err}
	}
	return b, func() error { return unix.Munmap(b) }, nil
}
