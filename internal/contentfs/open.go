package contentfs

import (
	"errors"
	"io"
	"io/fs"
)

var (
	_ io.ReadSeeker  = (*openFile)(nil)
	_ io.ReaderAt    = (*openFile)(nil)
	_ fs.ReadDirFile = (*openDir)(nil)
)

// openFile is a file of a Tree, or of a Content, that is open.
type openFile struct {
	c      *Content
	entry  *entry
	path   string
	off    int64
	closed bool
}

func (f *openFile) Stat() (fs.FileInfo, error) {
	if f.closed {
		return nil, f.error("stat", fs.ErrClosed)
	}
	return f.entry, nil
}

func (f *openFile) error(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &fs.PathError{Op: op, Path: f.path, Err: err}
}

func (f *openFile) Read(p []byte) (int, error) {
	if f.closed {
		return 0, f.error("read", fs.ErrClosed)
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := f.c.ReadFileAt(f.entry.file, p, f.off)
	f.off += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, f.error("read", err)
}

func (f *openFile) ReadAt(p []byte, off int64) (int, error) {
	if f.closed {
		return 0, f.error("read", fs.ErrClosed)
	}
	if off < 0 {
		return 0, f.error("read", fs.ErrInvalid)
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := f.c.ReadFileAt(f.entry.file, p, off)
	return n, f.error("read", err)
}

func (f *openFile) Seek(off int64, whence int) (int64, error) {
	switch {
	case f.closed:
		return 0, f.error("seek", fs.ErrClosed)
	case whence == io.SeekCurrent:
		off += f.off
	case whence == io.SeekEnd:
		off += f.entry.length
	case whence != io.SeekStart:
		off = -1
	}
	if off < 0 {
		return 0, f.error("seek", fs.ErrInvalid)
	}
	f.off = off
	return off, nil
}

func (f *openFile) Close() error {
	if f.closed {
		return f.error("close", fs.ErrClosed)
	}
	f.closed = true
	return nil
}

// openDir is a directory of a Tree that is open.
type openDir struct {
	entry  *entry
	path   string
	listed int
	closed bool
}

func (f *openDir) error(op string, err error) error {
	return &fs.PathError{Op: op, Path: f.path, Err: err}
}

func (f *openDir) Stat() (fs.FileInfo, error) {
	if f.closed {
		return nil, f.error("stat", fs.ErrClosed)
	}
	return f.entry, nil
}

func (f *openDir) Read([]byte) (int, error) {
	return 0, f.error("read", errors.New("is a directory"))
}

func (f *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if f.closed {
		return nil, f.error("readdir", fs.ErrClosed)
	}
	rest := f.entry.entries[f.listed:]
	if n > 0 {
		if len(rest) == 0 {
			return nil, io.EOF
		}
		rest = rest[:min(n, len(rest))]
	}
	f.listed += len(rest)
	return dirEntries(rest), nil
}

func (f *openDir) Close() error {
	if f.closed {
		return f.error("close", fs.ErrClosed)
	}
	f.closed = true
	return nil
}
