package storage

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

func (d *rootDisk) Lock(name string, exclusive bool) (func(remove bool) error, error) {
	flag, how := os.O_RDONLY, uint32(windows.LOCKFILE_FAIL_IMMEDIATELY)
	if exclusive {
		flag, how = os.O_RDWR|os.O_CREATE, how|windows.LOCKFILE_EXCLUSIVE_LOCK
	}
	f, err := d.openIn(name, flag)
	if err != nil {
		return nil, d.named(name, err)
	}
	err = windows.LockFileEx(windows.Handle(f.Fd()), how, 0, 1, 0, new(windows.Overlapped))
	switch {
	case err == windows.ERROR_LOCK_VIOLATION || err == windows.ERROR_IO_PENDING:
		return nil, errors.Join(ErrInUse, f.Close())
	case err != nil:
		return nil, errors.Join(&fs.PathError{Op: "lock", Path: f.Name(), Err: err}, f.Close())
	}
	return func(remove bool) error {
		err := f.Close()
		if remove {
			// This system does not remove an open file. If another download has opened the file since it was closed above, the
			// lock is that download's now, and Remove fails.
			_ = d.root.Remove(name)
		}
		return err
	}, nil
}
