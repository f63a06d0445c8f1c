//go:build darwin || freebsd || linux

package storage

import (
	"errors"

	"golang.org/x/sys/unix"
)

func (f *rootFile) NextData(off, size int64) (start, end int64, err error) {
	start, err = f.Seek(off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // a hole up to the end
		return size, size, nil
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP): // the file system cannot report holes
		return off, max(off, size), nil
	case err != nil:
		return 0, 0, err
	}
	end, err = f.Seek(start, unix.SEEK_HOLE)
	if err != nil && errors.Is(err, unix.ENXIO) {
		return size, size, nil // another program truncated the file in between
	}
	return start, end, err
}
