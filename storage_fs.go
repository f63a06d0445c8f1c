package torrent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
)

// FSStorage shares content that lies in a file system, such as an embed.FS or an archive, under the paths that
// File.Path says, or under these without the name of the torrent. It is for Options.Storage. Nothing can be written to it: a download that lacks something ends with an error.
// A file that is missing or short is taken for content that is not there.
//
// Files are opened when they are first read, and stay open until the download is closed. One that is no io.ReaderAt and
// no io.Seeker is read into memory.
func FSStorage(fsys fs.FS) func(*Torrent) (Storage, error) {
	return func(t *Torrent) (Storage, error) {
		return &fsStorage{t: t, fsys: fsys, files: make([]fsFile, t.layout.NumFiles())}, nil
	}
}

// fsStorage reads content from an fs.FS.
type fsStorage struct {
	t     *Torrent
	fsys  fs.FS
	files []fsFile // by index
}

// fsFile is one file of it. Its mutex guards what opens it, and reads that have to seek first.
type fsFile struct {
	mu     sync.Mutex
	opened bool
	f      fs.File
	at     io.ReaderAt // nil if f is only an io.Seeker
	size   int64
	err    error // of opening
}

func (s *fsStorage) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && off < s.t.layout.Size() {
		i := s.t.layout.FileAt(off)
		f := s.t.layout.File(i)
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
func (s *fsStorage) read(i int, path string, p []byte, off int64) error {
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

func (f *fsFile) open(fsys fs.FS, path string) error {
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

func (s *fsStorage) WriteAt([]byte, int64) (int, error) {
	return 0, fmt.Errorf("write to an fs.FS: %w", ErrUnsupported)
}

func (s *fsStorage) Sync() error { return nil }

func (s *fsStorage) Close() error {
	var errs []error
	for i := range s.files {
		f := &s.files[i]
		f.mu.Lock()
		if f.f != nil {
			errs = append(errs, f.f.Close())
		}
		f.opened, f.f, f.at, f.err = true, nil, nil, ErrClosed
		f.mu.Unlock()
	}
	return errors.Join(errs...)
}
