package torrent

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"slices"
	"time"
)

var (
	_ fs.ReadFileFS = (*Downloaded)(nil)
	_ fs.StatFS     = (*Downloaded)(nil)
	_ fs.ReadDirFS  = (*Downloaded)(nil)

	_ io.ReadSeeker  = (*openFile)(nil)
	_ io.ReaderAt    = (*openFile)(nil)
	_ fs.ReadDirFile = (*openDir)(nil)
)

// entry is a file or a directory of the tree. It is its own fs.FileInfo and fs.DirEntry.
type entry struct {
	name    string // the last element of its path
	file    int    // index in the layout, or -1 for a directory
	length  int64
	modTime time.Time
	entries []*entry // of a directory, by name
}

func (e *entry) Name() string               { return e.name }
func (e *entry) Size() int64                { return e.length }
func (e *entry) ModTime() time.Time         { return e.modTime }
func (e *entry) IsDir() bool                { return e.file < 0 }
func (e *entry) Sys() any                   { return nil }
func (e *entry) Type() fs.FileMode          { return e.Mode().Type() }
func (e *entry) Info() (fs.FileInfo, error) { return e, nil }
func (e *entry) String() string             { return fs.FormatFileInfo(e) }

func (e *entry) Mode() fs.FileMode {
	if e.IsDir() {
		return fs.ModeDir | 0o555
	}
	return 0o444
}

// lookup finds name in the tree. It makes the tree when it is first needed.
func (d *Downloaded) lookup(op, name string) (*entry, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	err := fs.ErrNotExist
	switch {
	case d.closed:
		err = ErrClosed
	case !fs.ValidPath(name):
		err = fs.ErrInvalid
	default:
		d.mapsMu.Lock()
		defer d.mapsMu.Unlock()
		if d.tree == nil {
			d.tree = d.t.grow(d.chosen)
		}
		if e := d.tree[name]; e != nil {
			return e, nil
		}
	}
	return nil, &fs.PathError{Op: op, Path: name, Err: err}
}

// entry is that of file i.
func (t *Torrent) entry(i int) *entry {
	f := t.layout.File(i)
	return &entry{name: path.Base(f.Path), file: i, length: f.Length, modTime: t.creationDate}
}

// grow makes a tree of files.
func (t *Torrent) grow(files []int) map[string]*entry {
	dir := func(name string) *entry { return &entry{name: path.Base(name), file: -1, modTime: t.creationDate} }
	tree := map[string]*entry{".": dir(".")}
	for _, i := range files {
		f, e := t.layout.File(i), t.entry(i)
		tree[f.Path] = e
		for name := path.Dir(f.Path); ; name = path.Dir(name) {
			up, ok := tree[name]
			if !ok {
				up = dir(name)
				tree[name] = up
			}
			up.entries = append(up.entries, e)
			if ok {
				break
			}
			e = up
		}
	}
	for _, e := range tree {
		slices.SortFunc(e.entries, func(a, b *entry) int { return cmp.Compare(a.name, b.name) })
	}
	return tree
}

// Open opens a file or a directory. A file is also an io.Seeker and an io.ReaderAt.
// Its reads return an error if the file is no longer as it was verified.
func (d *Downloaded) Open(name string) (fs.File, error) {
	e, err := d.lookup("open", name)
	if err != nil {
		return nil, err
	}
	if e.IsDir() {
		return &openDir{d: d, entry: e, path: name}, nil
	}
	return &openFile{d: d, entry: e, path: name}, nil
}

// Stat returns size and type. The modification time is the torrent's creation date.
func (d *Downloaded) Stat(name string) (fs.FileInfo, error) {
	e, err := d.lookup("stat", name)
	if err != nil {
		return nil, err
	}
	return e, nil
}

// ReadDir lists a directory by name.
func (d *Downloaded) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := d.lookup("readdir", name)
	if err != nil {
		return nil, err
	}
	if !e.IsDir() {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errors.New("not a directory")}
	}
	return dirEntries(e.entries), nil
}

func dirEntries(entries []*entry) []fs.DirEntry {
	list := make([]fs.DirEntry, len(entries))
	for i, e := range entries {
		list[i] = e
	}
	return list
}

// ReadFile returns a copy of a file's content.
func (d *Downloaded) ReadFile(name string) ([]byte, error) {
	e, err := d.lookup("read", name)
	if err != nil {
		return nil, err
	}
	switch {
	case e.IsDir():
		err = errors.New("is a directory")
	case e.length > math.MaxInt:
		err = fmt.Errorf("%d bytes in one slice: %w", e.length, ErrTooLarge)
	default:
		b := make([]byte, e.length)
		n, readErr := d.readAt(e.file, b, 0)
		if n == len(b) && (readErr == nil || readErr == io.EOF) {
			return b, nil
		}
		err = readErr
	}
	return nil, &fs.PathError{Op: "read", Path: name, Err: err}
}

// openFile is a file of a Downloaded that was opened by its name.
type openFile struct {
	d      *Downloaded
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
	n, err := f.d.readAt(f.entry.file, p, f.off)
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
	n, err := f.d.readAt(f.entry.file, p, off)
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

// openDir is a directory of a Downloaded that was opened by its name.
type openDir struct {
	d      *Downloaded
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
