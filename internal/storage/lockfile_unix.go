//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package storage

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

func (d *rootDisk) Lock(name string, exclusive bool) (func(remove bool) error, error) {
	flag, how := os.O_RDONLY, unix.LOCK_SH
	if exclusive {
		flag, how = os.O_RDWR|os.O_CREATE, unix.LOCK_EX
	}
	for {
		f, err := d.openIn(name, flag)
		if err != nil {
			return nil, d.named(name, err)
		}
		lock := &rootFile{File: f}
		err = ignoringEINTR(func() error { return unix.Flock(int(f.Fd()), how|unix.LOCK_NB) })
		switch {
		case err == unix.EWOULDBLOCK:
			return nil, errors.Join(ErrInUse, f.Close())
		case err == unix.ENOTSUP || err == unix.ENOLCK || err == unix.ENOSYS || err == unix.EINVAL:
			// The file system has no locks. To continue without one is better than to fail.
		case err != nil:
			return nil, errors.Join(&fs.PathError{Op: "lock", Path: f.Name(), Err: err}, f.Close())
		}
		// The last holder may have removed the file after we opened it. Then this lock guards nothing.
		if ours, err := lock.Stat(); err == nil && !ours.Gone {
			return d.unlock(name, f), nil
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
}

func (d *rootDisk) unlock(name string, f *os.File) func(bool) error {
	return func(remove bool) error {
		var err error
		if remove {
			err = d.Remove(name)
		}
		return errors.Join(err, f.Close())
	}
}
