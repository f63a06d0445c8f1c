package contentfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"strings"
	"sync"

	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/storage"
)

// A Source reads content from an fs.FS, in which its files lie under their paths, or under these without the first
// element. A file is opened when it is first read. One that is no io.ReaderAt and no io.Seeker is read into memory.
type Source struct {
	layout layout.Layout
	fsys   fs.FS
	files  []sourceFile // by index
}

// NewSource returns a Source. Close it when done.
func NewSource(l layout.Layout, fsys fs.FS) *Source {
	return &Source{layout: l, fsys: fsys, files: make([]sourceFile, l.NumFiles())}
}

// sourceFile is one file of a Source. Its mutex guards what opens it, and reads that have to seek first.
type sourceFile struct {
	mu     sync.Mutex
	opened bool
	f      fs.File
	at     io.ReaderAt // nil if f is only an io.Seeker
	size   int64
	err    error // of opening
}

// ReadAt reads content, which may span files. What the file system lacks is an error that matches fs.ErrNotExist or
// io.ErrUnexpectedEOF.
func (s *Source) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && off < s.layout.Size() {
		i := s.layout.FileAt(off)
		f := s.layout.File(i)
		k := int(min(int64(len(p)-n), f.End()-off))
		part := p[n : n+k]
		if f.Pad {
			clear(part)
		} else if err := s.read(i, f.Path, part, off-f.Offset); err != nil {
			return n, err
		}
		n, off = n+k, off+int64(k)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// read fills p from file i.
func (s *Source) read(i int, path string, p []byte, off int64) error {
	f := &s.files[i]
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.opened {
		f.opened = true
		f.err = f.open(s.fsys, path)
	}
	if f.err != nil {
		return f.err
	}
	if off+int64(len(p)) > f.size {
		return io.ErrUnexpectedEOF
	}
	n, err := 0, error(nil)
	if f.at != nil {
		n, err = f.at.ReadAt(p, off)
	} else if _, err = f.f.(io.Seeker).Seek(off, io.SeekStart); err == nil {
		n, err = io.ReadFull(f.f, p)
	}
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// The caller holds f.mu.
func (f *sourceFile) open(fsys fs.FS, path string) error {
	opened, err := fsys.Open(path)
	if _, below, ok := strings.Cut(path, "/"); ok && errors.Is(err, fs.ErrNotExist) {
		opened, err = fsys.Open(below)
	}
	if err != nil {
		return err
	}
	info, err := opened.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		opened.Close()
		return err
	}
	f.f, f.size = opened, info.Size()
	switch r := opened.(type) {
	case io.ReaderAt:
		f.at = r
	case io.Seeker:
	default:
		defer opened.Close()
		f.f = nil
		b, err := io.ReadAll(opened)
		if err != nil {
			return err
		}
		f.at, f.size = bytes.NewReader(b), int64(len(b))
	}
	return nil
}

// Close closes what is open. Reads return storage.ErrClosed from then on.
func (s *Source) Close() error {
	var errs []error
	for i := range s.files {
		f := &s.files[i]
		f.mu.Lock()
		if f.f != nil {
			errs = append(errs, f.f.Close())
		}
		f.opened, f.f, f.at, f.err = true, nil, nil, storage.ErrClosed
		f.mu.Unlock()
	}
	return errors.Join(errs...)
}
