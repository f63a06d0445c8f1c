package torrent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// CreateFS is CreateContext for the content of a file system, such as an embed.FS or an archive.
//
// With a Name, all of fsys is the directory of that name. Without one the root of fsys must hold a single entry, a file
// or a directory, which is the content and gives it its name. FSStorage shares either from the same fsys.
//
// A file that is no io.ReaderAt and no io.Seeker is read by each core up to where its pieces end.
func CreateFS(ctx context.Context, fsys fs.FS, o *CreateOptions) (*Torrent, error) {
	if o == nil {
		o = &CreateOptions{}
	}
	t, err := createFS(ctx, fsys, o)
	if err != nil {
		if ctx.Err() != nil {
			err = contextError(ctx)
		}
		return nil, fmt.Errorf("create torrent of a file system: %w", err)
	}
	return t, nil
}

func createFS(ctx context.Context, fsys fs.FS, o *CreateOptions) (*Torrent, error) {
	if o.Name != "" {
		return create(ctx, fsFiles{fsys}, ".", o.Name, o)
	}
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, err
	}
	if len(entries) != 1 {
		return nil, fmt.Errorf("its root holds %d entries and not one, so that a Name is needed", len(entries))
	}
	name := entries[0].Name()
	return create(ctx, fsFiles{fsys}, name, name, o)
}

// A source is where content is found for a torrent to be made.
type source interface {
	walk(root string, fn fs.WalkDirFunc) error
	rel(root, path string) (string, error) // with slashes
	lstat(path string) (fs.FileInfo, error)
	open(path string) (fs.File, error)
}

// systemFiles are the files of the operating system.
type systemFiles struct{}

func (systemFiles) walk(root string, fn fs.WalkDirFunc) error { return filepath.WalkDir(root, fn) }

func (systemFiles) rel(root, path string) (string, error) {
	name, err := filepath.Rel(root, path)
	return filepath.ToSlash(name), err
}

func (systemFiles) lstat(path string) (fs.FileInfo, error) { return os.Lstat(path) }
func (systemFiles) open(path string) (fs.File, error)      { return os.Open(path) }

// fsFiles are the files of an fs.FS.
type fsFiles struct{ fsys fs.FS }

func (s fsFiles) walk(root string, fn fs.WalkDirFunc) error { return fs.WalkDir(s.fsys, root, fn) }

func (s fsFiles) rel(root, path string) (string, error) {
	if root == "." || root == path {
		return path, nil
	}
	return strings.TrimPrefix(path, root+"/"), nil
}

func (s fsFiles) lstat(path string) (fs.FileInfo, error) { return fs.Lstat(s.fsys, path) }
func (s fsFiles) open(path string) (fs.File, error)      { return s.fsys.Open(path) }

// forward reads at offsets that never fall, whatever the file can do.
func forward(f fs.File) io.ReaderAt {
	if at, ok := f.(io.ReaderAt); ok {
		return at
	}
	return &forwardReader{f: f}
}

// forwardReader is an io.ReaderAt for offsets that never fall.
type forwardReader struct {
	f   fs.File
	pos int64
}

func (r *forwardReader) ReadAt(p []byte, off int64) (n int, err error) {
	if s, ok := r.f.(io.Seeker); ok {
		r.pos, err = s.Seek(off, io.SeekStart)
	} else {
		var skipped int64
		skipped, err = io.CopyN(io.Discard, r.f, off-r.pos)
		r.pos += skipped
	}
	if err != nil {
		return 0, err
	}
	n, err = io.ReadFull(r.f, p)
	r.pos += int64(n)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}
