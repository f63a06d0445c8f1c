package torrent

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// fileStorage keeps the content in files under one directory, as other clients do: each under its
// path, without room taken for what was not written yet. Bytes of files that no one wants, but that
// share a piece with one that is wanted, go to one more file, the edges.
//
// Beside the content there is, while it is not complete, the resume sidecar, and while a download is
// writing a lock. All three are named for the info hash.
type fileStorage struct {
	content content
	dir     string
	disk    disk
	log     *slog.Logger

	// mu is held for writing by what changes which file a byte lives in, and for reading by every
	// read and write of bytes.
	mu     sync.RWMutex
	closed bool
	files  []fileState // by index in the layout; one more at the end is the edges
	wanted []bool      // as setWanted said last

	handles *handles

	resumeMu sync.Mutex // one saveResume at a time
	claims   *resume    // of an earlier run, as far as they still hold; nil if there is nothing to go by

	lockMu sync.Mutex
	unlock func(remove bool) error // nil while the lock is not held
	locked atomic.Bool

	slotMu sync.Mutex
	slots  map[int]int // piece to the number of its slot in the edges

	dirtyMu    sync.Mutex
	dirtyFiles []int               // written since the last Sync
	dirtyDirs  map[string]struct{} // in which names were made since then
	syncFailed error               // for good: what a failed sync lost, the next one will not miss

	scratch sync.Pool // of *[][]byte, the part of a run that falls in one file
}

// fileState is one file. Torrents of 100,000 files are no rarity, so it is kept small.
type fileState struct {
	name string // under the directory, in the system's form; "" for padding
	here bool   // the content's place is the file, wanted or found here, and not the edges; guarded by fileStorage.mu

	// mu is held while the file is written, so that what left says is known to be our doing.
	mu      sync.Mutex
	left    stamp // as our last write left the file, or as it was found
	dirty   bool  // among dirtyFiles
	writing atomic.Bool
	// meddled is set where a write of ours came upon a file that was not as it was left, and so made
	// left useless for telling; until renew.
	meddled atomic.Bool
}

// openFiles opens dir, made if it is not there, for the content.
//
// Nothing is locked yet, so any number may share what is complete; but where another download is
// writing the same content, here or in another process, it is ErrInUse.
func openFiles(c content, dir string, log *slog.Logger) (contents, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	disk, err := openRoot(dir)
	if err != nil {
		return nil, err
	}
	s, err := openFilesOn(c, disk, dir, log)
	if err != nil {
		return nil, errors.Join(err, disk.close())
	}
	if err := s.probe(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.readResume()
	return s, nil
}

// openFilesOn looks at what there is, and changes nothing.
func openFilesOn(c content, disk disk, dir string, log *slog.Logger) (*fileStorage, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &fileStorage{
		content: c, dir: dir, disk: disk, log: log,
		files:     make([]fileState, c.NumFiles()+1),
		slots:     make(map[int]int),
		dirtyDirs: make(map[string]struct{}),
		scratch:   sync.Pool{New: func() any { return new([][]byte) }},
	}
	s.handles = newHandles(maxHandles, s.open)
	for i := range s.files {
		f := &s.files[i]
		if i == s.edgesFile() {
			f.name = s.sidecar(".edges.resume")
		} else if c.File(i).Pad {
			continue
		} else {
			f.name = s.ownName(i)
		}
		info, err := disk.stat(f.name)
		if absent(err) && i < s.edgesFile() {
			if part, err := disk.stat(f.name + partSuffix); err == nil && part.regular && part.size <= c.File(i).Length {
				f.name, f.left, f.here = f.name+partSuffix, part.stamp, true
				continue
			}
		}
		switch {
		case absent(err):
		case err != nil:
			return nil, err
		case !info.regular:
			return nil, &fs.PathError{Op: "open", Path: s.path(i), Err: errors.New("not a regular file")}
		default:
			f.left, f.here = info.stamp, true
		}
	}
	return s, s.findSlots()
}

// partSuffix is behind the name of a file that Transmission did not complete. Such a file is read under
// that name, and gets its own before anything is written.
const partSuffix = ".part"

// absent tells whether err says that a file is not there. A directory on the way that is a file
// means the same, until something is to be written.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) || notDirectory(err) }

// ownName is the name of file i of the torrent under the directory.
func (s *fileStorage) ownName(i int) string { return filepath.FromSlash(s.content.File(i).Path) }

// sidecar is the name of a file beside the content.
func (s *fileStorage) sidecar(suffix string) string {
	return "." + hex.EncodeToString(s.content.InfoHash[:]) + suffix
}

// edgesFile is the index of the edges in files.
func (s *fileStorage) edgesFile() int { return len(s.files) - 1 }

// path names file i in errors.
func (s *fileStorage) path(i int) string { return filepath.Join(s.dir, s.files[i].name) }

// open is what handles opens file i with. To create is to make the directories that lead there.
func (s *fileStorage) open(i, flag int) (diskFile, error) {
	name := s.files[i].name
	f, err := s.disk.open(name, flag)
	if err != nil && flag&os.O_CREATE != 0 && errors.Is(err, fs.ErrNotExist) {
		if err := s.mkdirAll(filepath.Dir(name)); err != nil {
			return nil, err
		}
		f, err = s.disk.open(name, flag)
	}
	if err == nil && flag&os.O_CREATE != 0 {
		s.madeName(name)
	}
	return f, err
}

func (s *fileStorage) mkdirAll(name string) error {
	if name == "." {
		return nil
	}
	for dir := name; dir != "."; dir = filepath.Dir(dir) {
		s.madeName(dir)
	}
	return s.disk.mkdirAll(name)
}

// madeName has the directory that holds name synced with the next Sync.
func (s *fileStorage) madeName(name string) {
	s.dirtyMu.Lock()
	defer s.dirtyMu.Unlock()
	s.dirtyDirs[filepath.Dir(name)] = struct{}{}
}

func (s *fileStorage) ReadAt(p []byte, off int64) (n int, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := checkRead(&s.content, s.closed, off); err != nil {
		return 0, err
	}
	for i := s.content.FileAt(off); n < len(p) && i < s.content.NumFiles(); i++ {
		f := s.content.File(i)
		part := p[n : n+int(min(int64(len(p)-n), f.End()-off))]
		switch {
		case f.Pad:
			clear(part)
		case s.files[i].here:
			err = s.readFile(i, part, off-f.Offset)
		default:
			err = s.readEdges(part, off)
		}
		if err != nil {
			return n, err
		}
		n, off = n+len(part), off+int64(len(part))
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// readFile reads all of p from file i.
func (s *fileStorage) readFile(i int, p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	h, err := s.handles.get(i, false, false)
	if err != nil {
		return err
	}
	defer s.handles.put(h)
	if err := readFull(h.f, p, off); errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%s: %w", s.path(i), err)
	} else if err != nil {
		return err
	}
	return nil
}

func (s *fileStorage) WriteAt(p []byte, off int64) (int, error) {
	one := s.scratch.Get().(*[][]byte)
	defer s.scratch.Put(one)
	*one = append((*one)[:0], p)
	err := s.writeBlocks(*one, off)
	clear(*one)
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (s *fileStorage) writeBlocks(blocks [][]byte, off int64) error {
	total := int64(0)
	for _, b := range blocks {
		total += int64(len(b))
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := checkWrite(&s.content, s.closed, off, total); err != nil {
		return err
	}
	if err := s.lock(); err != nil {
		return err
	}
	part := s.scratch.Get().(*[][]byte)
	defer s.scratch.Put(part)
	r := run{blocks: blocks}
	for i := s.content.FileAt(off); total > 0; i++ {
		f := s.content.File(i)
		n := min(total, f.End()-off)
		if n == 0 {
			continue
		}
		*part = r.take((*part)[:0], n)
		var err error
		switch {
		case f.Pad:
		case s.files[i].here:
			err = s.writeFile(i, *part, off-f.Offset)
		default:
			err = s.writeEdges(*part, off, n)
		}
		clear(*part)
		if err != nil {
			return err
		}
		off, total = off+n, total-n
	}
	return nil
}

// run is buffers that follow one another in the content, of which some bytes were taken already.
type run struct {
	blocks [][]byte
	taken  int // of blocks[0]
}

// take appends the next n bytes of the run to part.
func (r *run) take(part [][]byte, n int64) [][]byte {
	for n > 0 {
		b := r.blocks[0][r.taken:]
		if int64(len(b)) > n {
			r.taken += int(n)
			return append(part, b[:n])
		}
		part = append(part, b)
		n -= int64(len(b))
		r.blocks, r.taken = r.blocks[1:], 0
	}
	return part
}

// writeFile writes bufs to file i, which is made if it is not there.
func (s *fileStorage) writeFile(i int, bufs [][]byte, off int64) error {
	f := &s.files[i]
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writing.Store(true)
	defer f.writing.Store(false)
	h, err := s.handles.get(i, true, true)
	if err != nil {
		return err
	}
	defer func() { s.handles.put(h) }()
	before, err := h.f.stat()
	if err != nil {
		return err
	}
	if before.gone {
		// Someone took the name away. What is written to such a file is lost.
		f.meddled.Store(true)
		s.handles.drop(i)
		again, err := s.handles.get(i, true, true)
		if err != nil {
			return err
		}
		s.handles.put(h)
		h = again
	} else if before.stamp != f.left && (f.left != stamp{} || before.size > 0) {
		f.meddled.Store(true)
	}
	s.markDirty(i)
	err = h.f.writev(bufs, off)
	// A write that failed may have changed the file as well.
	after, statErr := h.f.stat()
	f.left = after.stamp
	return cmp.Or(err, statErr)
}

// markDirty has file i synced with the next Sync. Its mutex is held.
func (s *fileStorage) markDirty(i int) {
	if f := &s.files[i]; !f.dirty {
		f.dirty = true
		s.dirtyMu.Lock()
		s.dirtyFiles = append(s.dirtyFiles, i)
		s.dirtyMu.Unlock()
	}
}

// leftAs is how file i was left.
func (s *fileStorage) leftAs(i int) stamp {
	f := &s.files[i]
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.left
}

// file maps file i. What it is not, is a promise that the file will not shrink under the map.
func (s *fileStorage) file(i int) ([]byte, func() error, error) {
	length := s.content.File(i).Length
	if err := s.changedFile(i); err != nil {
		return nil, nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch {
	case s.closed:
		return nil, nil, ErrClosed
	case length > math.MaxInt:
		return nil, nil, fmt.Errorf("%s: %d bytes in one slice: %w", s.path(i), length, ErrTooLarge)
	case length == 0:
		return []byte{}, func() error { return nil }, nil
	}
	h, err := s.handles.get(i, false, false)
	if err != nil {
		return nil, nil, err
	}
	defer s.handles.put(h)
	info, err := h.f.stat()
	if err != nil {
		return nil, nil, err
	}
	if info.size < length {
		return nil, nil, fmt.Errorf("%s: %d of %d bytes: %w", s.path(i), info.size, length, io.ErrUnexpectedEOF)
	}
	return h.f.mmap(int(length))
}

func (s *fileStorage) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.closed = true
	return errors.Join(s.handles.closeAll(), s.release(), s.disk.close())
}
