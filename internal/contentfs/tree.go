// Package contentfs has the content of a torrent as a file system, and a file system as the content of a torrent.
//
// It owns the files that it opens. What it returns may be used from any goroutine, but for an open file or directory, which
// belongs to one at a time.
package contentfs

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

	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/storage"
)

var (
	_ fs.ReadFileFS = (*Tree)(nil)
	_ fs.StatFS     = (*Tree)(nil)
	_ fs.ReadDirFS  = (*Tree)(nil)
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

// Content is what the files are read from.
type Content struct {
	Layout  layout.Layout
	ModTime time.Time // of all files

	// ReadFileAt reads from file i, and never past its end. It is called from the goroutines of those who read.
	ReadFileAt func(i int, p []byte, off int64) (int, error)
}

// OpenFile opens file i.
func (c *Content) OpenFile(i int) fs.File {
	return &openFile{c: c, entry: c.entry(i), path: c.Layout.File(i).Path}
}

// entry is that of file i.
func (c *Content) entry(i int) *entry {
	f := c.Layout.File(i)
	return &entry{name: path.Base(f.Path), file: i, length: f.Length, modTime: c.ModTime}
}

// A Tree is some files of a content as a file system. It does not change.
type Tree struct {
	c       *Content
	entries map[string]*entry // by path
}

// Tree returns a file system of some files, by index in the layout.
func (c *Content) Tree(files []int) *Tree {
	dir := func(name string) *entry { return &entry{name: path.Base(name), file: -1, modTime: c.ModTime} }
	tree := map[string]*entry{".": dir(".")}
	for _, i := range files {
		f, e := c.Layout.File(i), c.entry(i)
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
	return &Tree{c, tree}
}

// lookup finds name.
func (t *Tree) lookup(op, name string) (*entry, error) {
	err := fs.ErrNotExist
	if !fs.ValidPath(name) {
		err = fs.ErrInvalid
	} else if e := t.entries[name]; e != nil {
		return e, nil
	}
	return nil, &fs.PathError{Op: op, Path: name, Err: err}
}

// Open opens a file or a directory. A file is also an io.Seeker and an io.ReaderAt.
// Its reads return an error if the file is no longer as it was verified.
func (t *Tree) Open(name string) (fs.File, error) {
	e, err := t.lookup("open", name)
	if err != nil {
		return nil, err
	}
	if e.IsDir() {
		return &openDir{entry: e, path: name}, nil
	}
	return &openFile{c: t.c, entry: e, path: name}, nil
}

// Stat returns size and type. The modification time is the content's.
func (t *Tree) Stat(name string) (fs.FileInfo, error) {
	e, err := t.lookup("stat", name)
	if err != nil {
		return nil, err
	}
	return e, nil
}

// ReadDir lists a directory by name.
func (t *Tree) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := t.lookup("readdir", name)
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
func (t *Tree) ReadFile(name string) ([]byte, error) {
	e, err := t.lookup("read", name)
	if err != nil {
		return nil, err
	}
	switch {
	case e.IsDir():
		err = errors.New("is a directory")
	case e.length > math.MaxInt:
		err = fmt.Errorf("%d bytes in one slice: %w", e.length, storage.ErrTooLarge)
	default:
		b := make([]byte, e.length)
		n, readErr := t.c.ReadFileAt(e.file, b, 0)
		if n == len(b) && (readErr == nil || readErr == io.EOF) {
			return b, nil
		}
		err = readErr
	}
	return nil, &fs.PathError{Op: "read", Path: name, Err: err}
}
