package torrent

import (
	"cmp"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/shoal-go/torrent/internal/merkle"
	"github.com/shoal-go/torrent/internal/storage"
)

const (
	sumBuffer = 256 << 10 // bytes that a core reads at a time: they are still in its cache when hashed
	sumRun    = 4 << 20   // bytes, about, that a core hashes in sequence, as disks like to read
)

// sums are the hashes of the content of a plan. Those that its version does not have are nil.
type sums struct {
	v1     []byte            // SHA-1 of each piece
	pieces []byte            // the root of each piece in the tree of its file (BEP 52)
	roots  []merkle.Hash     // of each file
	layers map[string][]byte // parts of pieces, by the roots of files longer than a piece
}

// newSums returns room for the hashes of a plan, filled with values that no content has.
func newSums(p *plan) *sums {
	s, n := new(sums), p.layout.NumPieces()
	if p.o.Version != V2 {
		s.v1 = make([]byte, n*sha1.Size)
	}
	if p.o.Version != V1 {
		s.pieces = make([]byte, n*merkle.Size)
		s.roots = make([]merkle.Hash, len(p.files))
		for i := range s.roots {
			s.roots[i][0] = 1 // zeros are no root
		}
	}
	return s
}

// finish computes the roots of the files from those of their pieces.
func (s *sums) finish(p *plan) {
	if s.pieces == nil {
		return
	}
	s.layers = make(map[string][]byte)
	for i := range p.files {
		f := p.layout.File(i)
		if f.Length == 0 || f.Pad {
			continue
		}
		first, end := p.layout.PiecesOf(i)
		layer := s.pieces[first*merkle.Size : end*merkle.Size]
		if f.Length <= p.pieceLength {
			s.roots[i] = merkle.Hash(layer)
			continue
		}
		level := merkle.Height(p.pieceLength / merkle.BlockSize)
		s.roots[i] = merkle.Root(layer, level, merkle.Height(merkle.Blocks(f.Length)))
		s.layers[string(s.roots[i][:])] = layer
	}
}

// A pieceSummer hashes one piece after another, by all rules of the plan at once.
type pieceSummer struct {
	p    *plan
	s    *sums
	sha1 hash.Hash      // nil for version 2 alone
	tree *merkle.Hasher // nil for version 1
}

func newPieceSummer(p *plan, s *sums) *pieceSummer {
	h := &pieceSummer{p: p, s: s}
	if s.v1 != nil {
		h.sha1 = sha1.New()
	}
	if s.pieces != nil {
		h.tree = merkle.NewHasher()
	}
	return h
}

func (h *pieceSummer) Write(b []byte) (int, error) {
	if h.sha1 != nil {
		h.sha1.Write(b)
	}
	if h.tree != nil {
		h.tree.Write(b)
	}
	return len(b), nil
}

// sum records the hashes of piece i, all of which was written.
func (h *pieceSummer) sum(i int) {
	if h.sha1 != nil {
		writeZeros(h.sha1, h.p.layout.PieceFill(i))
		h.sha1.Sum(h.s.v1[:i*sha1.Size])
		h.sha1.Reset()
	}
	if h.tree != nil {
		height := merkle.Height(h.p.pieceLength / merkle.BlockSize)
		if f := h.p.layout.File(h.p.layout.FileAt(h.p.layout.PieceOffset(i))); f.Length <= h.p.pieceLength {
			height = merkle.Height(merkle.Blocks(f.Length))
		}
		root := h.tree.Sum(height)
		copy(h.s.pieces[i*merkle.Size:], root[:])
	}
}

// sumPieces fills in the hashes of a plan. Each core reads its own pieces once, through a buffer of its own, with at most one
// file open, so memory and open files do not grow with the number of pieces or files.
func sumPieces(ctx context.Context, src source, s *sums, p *plan) error {
	pieces, files := p.layout.NumPieces(), p.files
	run := int(max(1, sumRun/p.pieceLength))

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	report := progressOf(ctx, p.length, p.o.Progress)
	var next, hashed atomic.Int64 // the first piece that no core has taken, and how many are hashed
	var cores sync.WaitGroup
	panics := make(chan any, runtime.GOMAXPROCS(0)) // of functions of the caller's
	for range min(cap(panics), (pieces-1)/run+1) {
		cores.Go(func() {
			defer func() {
				if v := recover(); v != nil {
					panics <- v
					cancel(nil)
				}
			}()
			r := contentReader{src: src, files: files, buf: make([]byte, min(sumBuffer, p.total)), report: report}
			defer r.close()
			h := newPieceSummer(p, s)
			for {
				end := int(next.Add(int64(run)))
				for i := end - run; i < min(end, pieces); i++ {
					if err := r.sum(ctx, h, p.layout.PieceOffset(i), p.layout.PieceSize(i)); err != nil {
						cancel(err)
						return
					}
					h.sum(i)
					hashed.Add(1)
				}
				if end >= pieces {
					return
				}
			}
		})
	}
	cores.Wait()
	if len(panics) > 0 {
		panic(<-panics)
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if hashed.Load() < int64(pieces) {
		return errors.New("a function of the caller's ended its goroutine") // by runtime.Goexit, as t.FailNow does
	}
	s.finish(p)
	// A file that changed after it was read, or in a way that reading did not show, has another time now.
	for i := range files {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if f := &files[i]; f.path != "" {
			info, err := src.lstat(f.path)
			if err != nil {
				return err
			}
			if err := f.check(info); err != nil {
				return err
			}
		}
	}
	return nil
}

// contentReader reads the files as one run of bytes, forward only.
type contentReader struct {
	src    source
	files  []contentFile
	buf    []byte
	report func(n int)

	file fs.File     // files[0], if it is open
	at   io.ReaderAt // of file
}

// sum writes n bytes of the content from off on to h.
func (r *contentReader) sum(ctx context.Context, h io.Writer, off, n int64) error {
	for n > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if skip := sort.Search(len(r.files), func(i int) bool { return r.files[i].offset+r.files[i].length > off }); skip > 0 {
			r.close()
			r.files = r.files[skip:]
		}
		f := &r.files[0]
		b := r.buf[:min(int64(len(r.buf)), n, f.offset+f.length-off)]
		if f.path == "" {
			clear(b)
		} else {
			if err := r.read(f, b, off-f.offset); err != nil {
				return err
			}
			r.report(len(b))
		}
		h.Write(b)
		off, n = off+int64(len(b)), n-int64(len(b))
	}
	return nil
}

func (r *contentReader) read(f *contentFile, b []byte, off int64) error {
	if r.file == nil {
		var err error
		if r.file, err = r.src.open(f.path); err != nil {
			return err
		}
		r.at = forward(r.file)
		info, err := r.file.Stat()
		if err != nil {
			return err
		}
		if err := f.check(info); err != nil {
			return err
		}
	}
	if n, err := r.at.ReadAt(b, off); n < len(b) {
		if errors.Is(err, io.EOF) {
			return f.changed()
		}
		return err
	}
	return nil
}

func (r *contentReader) close() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}

// check returns an error if the file is not as it was when it was found.
func (f *contentFile) check(info fs.FileInfo) error {
	if !info.Mode().IsRegular() || info.Size() != f.length || !info.ModTime().Equal(f.modTime) {
		return f.changed()
	}
	return nil
}

func (f *contentFile) changed() error { return fmt.Errorf("%s changed while it was read", f.path) }

// progressOf turns progress into a function that takes each step, as a number of bytes, from any goroutine. Once ctx has ended it does
// nothing: Create may have returned.
func progressOf(ctx context.Context, total int64, progress func(done, total int64)) func(n int) {
	if progress == nil {
		return func(int) {}
	}
	var mu sync.Mutex
	var done int64
	return func(n int) {
		mu.Lock()
		defer mu.Unlock()
		done += int64(n)
		if ctx.Err() == nil {
			progress(done, total)
		}
	}
}

// CreateFS is CreateContext for the content of a file system, such as an embed.FS or an archive. A call of a method of fsys that is
// under way may go on, too.
//
// With a Name, all of fsys is the directory of that name. Without one the root of fsys must hold a single entry, a file
// or a directory, which is the content and gives it its name. FSStorage shares either from the same fsys.
//
// A file that is neither an io.ReaderAt nor an io.Seeker is read from its beginning by each core, up to the end of
// the core's pieces.
func CreateFS(ctx context.Context, fsys fs.FS, o *CreateOptions) (*Torrent, error) {
	return createInTime(ctx, "a file system", func() (*Torrent, error) { return createFS(ctx, fsys, cmp.Or(o, &CreateOptions{})) })
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
		return nil, fmt.Errorf("its root holds %d entries, not one: CreateOptions.Name is needed", len(entries))
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
func (systemFiles) open(path string) (fs.File, error)      { return storage.OpenAtOnce(path) }

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
