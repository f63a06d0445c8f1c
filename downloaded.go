package torrent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"sync"

	"github.com/shoal-go/torrent/internal/contentfs"
	"github.com/shoal-go/torrent/internal/storage"
)

var (
	_ fs.ReadFileFS = (*Downloaded)(nil)
	_ fs.StatFS     = (*Downloaded)(nil)
	_ fs.ReadDirFS  = (*Downloaded)(nil)
)

// Downloaded is the result of a download: its chosen files, verified. It is an fs.FS (and
// fs.ReadFileFS, fs.StatFS, fs.ReadDirFS) of them under their paths, and may be used from any
// goroutine. Close it when done.
type Downloaded struct {
	ctx   context.Context // of the download
	t     *Torrent
	store storage.Store
	stop  func() // ends sharing

	// look returns a number that changes whenever a piece of the file becomes verified, or no longer is, and whether the pieces from first
	// up to but not including end are verified. It locks the download's mutex, so the caller must not hold mu.
	look func(file, first, end int) (changes int, verified bool)

	// closeStore closes the store, once. A download that fails calls it before Close does. Slices of files
	// that Completed yielded stay valid until Close.
	closeStore func() error

	closeOnce func() error // close, once

	mu     sync.RWMutex // held for reading by every read, for writing by Close
	closed bool

	mapsMu sync.Mutex
	maps   map[int]mapped // by index in the layout
	former []func() error // of slices that were replaced, which stay valid until Close

	// Not held while storage is read: choose is called with the download's mutex held, for which a read may wait.
	chosenMu sync.Mutex
	chosen   []int           // by index in the layout, in torrent order
	tree     *contentfs.Tree // made when it is first needed
}

// mapped is what store.Bytes returned for one file.
type mapped struct {
	bytes   []byte
	release func() error
	changes int // those of the file before
	copies  int // those that the store had put in the place of the file before
}

// newDownloaded returns a Downloaded without files. Its Close calls stop before it closes s.
func newDownloaded(ctx context.Context, t *Torrent, s storage.Store, stop func(), look func(file, first, end int) (int, bool)) *Downloaded {
	d := &Downloaded{ctx: ctx, t: t, store: s, stop: stop, look: look, closeStore: sync.OnceValue(s.Close), maps: make(map[int]mapped)}
	d.closeOnce = sync.OnceValue(d.close)
	return d
}

// choose sets the files of d, by index in the layout.
func (d *Downloaded) choose(files []int) {
	d.chosenMu.Lock()
	defer d.chosenMu.Unlock()
	d.chosen = slices.Sorted(slices.Values(files))
	d.chosen = slices.DeleteFunc(d.chosen, func(i int) bool { return d.t.layout.File(i).Pad })
	d.tree = nil
}

// file is one file, chosen or not.
func (d *Downloaded) file(i int) *DownloadedFile { return &DownloadedFile{d: d, index: i} }

// Files yields the files in torrent order, padding files left out.
func (d *Downloaded) Files() iter.Seq[*DownloadedFile] {
	return func(yield func(*DownloadedFile) bool) {
		d.chosenMu.Lock()
		chosen := d.chosen
		d.chosenMu.Unlock()
		for _, i := range chosen {
			if !yield(d.file(i)) {
				return
			}
		}
	}
}

// Close ends sharing, if the download still shares, and releases all maps and memory. Byte slices
// that Bytes returned must not be used after it: maps are unmapped, and reading them crashes the
// program. All other methods return ErrClosed from then on. Files in a directory stay.
//
// A disk may hang. If the context of the download has ended, Close waits for it no longer than a few seconds, and returns an error that
// matches that of the context.
func (d *Downloaded) Close() error {
	return inTime(d.ctx, d.closeOnce)
}

func (d *Downloaded) close() error {
	d.stop()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	var errs []error
	for _, m := range d.maps {
		errs = append(errs, m.release())
	}
	for _, release := range d.former {
		errs = append(errs, release())
	}
	d.maps, d.former = nil, nil
	return errors.Join(append(errs, d.closeStore())...)
}

// readAt reads from file i, and never past its end. A long read may take so long that a piece which is wrong is repaired meanwhile.
func (d *Downloaded) readAt(i int, p []byte, off int64) (int, error) {
	f := d.t.layout.File(i)
	length := min(int64(len(p)), f.Length-off)
	if length <= 0 {
		return d.readStored(i, p, off)
	}
	first, end := d.t.layout.PieceAt(f.Offset+off), d.t.layout.PieceAt(f.Offset+off+length-1)+1
	for range 8 { // other pieces of the file may change, too
		before, verified := d.look(i, first, end)
		n, err := d.readStored(i, p, off)
		after, _ := d.look(i, first, end)
		if n == 0 || verified && after == before {
			return n, err
		}
		if !verified {
			break
		}
	}
	return 0, d.inDoubt(i)
}

// inDoubt returns the error for a file of which a piece is in doubt.
func (d *Downloaded) inDoubt(i int) error {
	return fmt.Errorf("%s: %w, and not verified again yet", d.t.layout.File(i).Path, storage.ErrChanged)
}

// readStored is readAt, but finds only changes that the store reports: pieces in doubt are read as well.
func (d *Downloaded) readStored(i int, p []byte, off int64) (int, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return 0, ErrClosed
	}
	f := d.t.layout.File(i)
	if off >= f.Length {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), f.Length-off)]
	if err := d.store.ChangedFile(i); err != nil {
		return 0, err
	}
	n, err := d.store.ReadAt(want, f.Offset+off)
	switch {
	case n < len(want) && (err == nil || errors.Is(err, io.EOF)):
		return n, io.ErrUnexpectedEOF
	case n < len(want):
		return n, err
	case n < len(p):
		return n, io.EOF
	}
	return n, nil
}

// content is what open files read.
func (d *Downloaded) content() *contentfs.Content {
	return &contentfs.Content{Layout: d.t.layout, ModTime: d.t.creationDate, ReadFileAt: d.readAt}
}

// fileSystem returns the tree of the chosen files, for an operation on a name.
func (d *Downloaded) fileSystem(op, name string) (*contentfs.Tree, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return nil, &fs.PathError{Op: op, Path: name, Err: ErrClosed}
	}
	d.chosenMu.Lock()
	defer d.chosenMu.Unlock()
	if d.tree == nil {
		d.tree = d.content().Tree(d.chosen)
	}
	return d.tree, nil
}

// Open opens a file or a directory. A file is also an io.Seeker and an io.ReaderAt.
// Its reads return an error if the file is no longer as it was verified.
func (d *Downloaded) Open(name string) (fs.File, error) {
	t, err := d.fileSystem("open", name)
	if err != nil {
		return nil, err
	}
	return t.Open(name)
}

// Stat returns size and type. The modification time is the creation date of the torrent.
func (d *Downloaded) Stat(name string) (fs.FileInfo, error) {
	t, err := d.fileSystem("stat", name)
	if err != nil {
		return nil, err
	}
	return t.Stat(name)
}

// ReadDir lists a directory by name.
func (d *Downloaded) ReadDir(name string) ([]fs.DirEntry, error) {
	t, err := d.fileSystem("readdir", name)
	if err != nil {
		return nil, err
	}
	return t.ReadDir(name)
}

// ReadFile returns a copy of a file's content.
func (d *Downloaded) ReadFile(name string) ([]byte, error) {
	t, err := d.fileSystem("read", name)
	if err != nil {
		return nil, err
	}
	return t.ReadFile(name)
}

// DownloadedFile is one verified file of a Downloaded.
type DownloadedFile struct {
	d     *Downloaded
	index int
}

// Path is slash-separated, as in File.
func (f *DownloadedFile) Path() string { return f.d.t.layout.File(f.index).Path }

// Length is in bytes.
func (f *DownloadedFile) Length() int64 { return f.d.t.layout.File(f.index).Length }

// Open opens the file for reading. If another program has changed or shortened the file, reads return an error, where
// access to the slice of Bytes could crash the program. The result is also an io.Seeker and an io.ReaderAt.
func (f *DownloadedFile) Open() (fs.File, error) {
	d := f.d
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return nil, &fs.PathError{Op: "open", Path: f.Path(), Err: ErrClosed}
	}
	return d.content().OpenFile(f.index), nil
}

// Bytes returns the content without a copy. It must not be written to. It is a slice of the memory that holds the content, or a memory
// map of the file that is made at the first call, and again after the file was changed and repaired, or moved to another disk. The map
// stays until the Downloaded is closed; closing the Download does not end it, and if the download fails the map stays until the program
// ends. As long as there are maps, no other download may have the files. The content of a user's Storage is read into memory, and so is
// a file of at most 16 KiB. For an empty file the slice is empty.
//
// Bytes returns an error if the size or modification time of the file has changed since it was verified, or if the
// file is longer than a slice can be. Once the program has between half and three quarters of the memory maps that the
// system allows it, whether for one download or many, Bytes returns ErrTooLarge rather than another map: without any
// left the program could not go on.
//
// A map always shows the present content of the file. If another program writes to it later, the slice changes. If the
// file is made shorter, or the disk fails, reading what is missing crashes the program (SIGBUS), which Go cannot recover
// from. If other programs may write to the files, use Open or ReadFile on the Downloaded: they return an error then.
func (f *DownloadedFile) Bytes() ([]byte, error) {
	first, end := f.d.t.layout.PiecesOf(f.index)
	before, verified := f.d.look(f.index, first, end)
	if !verified {
		return nil, f.d.inDoubt(f.index) // rather than one slice more for each piece that is verified again
	}
	b, err := f.d.slice(f.index, before)
	if after, _ := f.d.look(f.index, first, end); err == nil && after != before {
		return nil, f.d.inDoubt(f.index)
	}
	return b, err
}

// slice is Bytes, but finds only changes that the store reports: pieces in doubt are returned as well. A slice that was made before a piece
// of the file was in doubt is not returned again: it may be a copy of what was wrong, or a map of a file that is another program's now. So
// may be one that was made before the file was moved to another disk.
func (d *Downloaded) slice(i, changes int) ([]byte, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return nil, ErrClosed
	}
	d.mapsMu.Lock()
	defer d.mapsMu.Unlock()
	former, again := d.maps[i]
	copies := d.store.Copies(i)
	if again && former.changes == changes && former.copies == copies {
		if err := d.store.ChangedFile(i); err != nil {
			return nil, err
		}
		return former.bytes, nil
	}
	b, release, err := d.store.Bytes(i)
	if err != nil {
		return nil, err
	}
	d.maps[i] = mapped{b, release, changes, copies}
	if again {
		d.former = append(d.former, former.release)
	}
	return b, nil
}
