package storage

import (
	"cmp"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// fileStore keeps the content in files under one directory, as other clients do: each under its path, and
// sparse until it is written. Bytes of files that are not wanted, but share a piece with a wanted one, go to
// one more file, the edges.
//
// While the content is not complete, the resume sidecar lies beside it, and while the store writes, a lock. All
// three are named for the info hash.
type fileStore struct {
	content Content
	dir     string
	disk    Disk
	log     *slog.Logger
	reopen  func() (Disk, error) // opens disk again

	// mu is held for writing where the file that a byte lives in changes, and for reading by every read and
	// write of bytes.
	mu     sync.RWMutex
	closed bool
	move   *move       // under way, or nil
	files  []fileState // by index in the layout; one more at the end is the edges
	wanted []bool      // by index in the layout, as SetWanted was told last

	linksOnce sync.Once
	links     []link // by linked

	handles *handles
	stopped atomic.Bool

	maps        mapCount
	mapsAreMany func() bool

	resumeMu sync.Mutex                      // one SaveResume, Sync or end of a Move at a time; taken before mu
	resumed  *resume                         // the sidecar of an earlier run, as far as it still holds; nil if there is none
	saved    atomic.Pointer[[sha1.Size]byte] // the checksum of the sidecar that is there; nil if there is none of ours

	lockMu sync.Mutex
	unlock func(remove bool) error // nil while the lock is not held
	locked atomic.Bool

	slotMu sync.Mutex
	slots  map[int]int // piece to the number of its slot in the edges

	dirtyMu    sync.Mutex
	dirtyFiles []int               // written since the last Sync
	dirtyDirs  map[string]struct{} // in which names were made since then
	syncFailed error               // stays: a later sync does not know what this one lost

	folding int8          // the file system takes names for one that differ in case alone: 1 if so, -1 if not, 0 if that is not known; guarded by mu
	alike   map[int][]int // files whose paths differ from these files' in case alone, and themselves

	scratch sync.Pool // of *[][]byte, the part of a run that falls in one file
}

// fileState is one file. It is kept small, because torrents of 100,000 files are not rare.
type fileState struct {
	name string // under the directory, in the system's form; "" for padding
	here bool   // its bytes are in the file, wanted or not, and not in the edges; guarded by fileStore.mu

	// As the file was found, or made. Guarded by fileStore.mu, as is name.
	id    FileID
	links int
	twin  bool // another file of the content was found to be the same
	alias bool // read under a name that is not its own, until Settle sees whether it is ours

	// ready is set once writing changes nothing but this file, by own, or by makeNew, which holds fileStore.mu for reading, and mu.
	ready atomic.Bool

	// mu is held while the file is written, so that left is known to be our own doing.
	mu      sync.Mutex
	left    Stamp // as our last write left the file, or as it was found; zero if it is not there
	dirty   bool  // among dirtyFiles
	durable bool  // as it was found it is on disk for certain, or was among dirtyFiles since
	written bool  // by us, in this run or an earlier one that did not complete the content
	known   bool  // an earlier run left it, and not too long
	writing atomic.Bool
	// meddled is set when a write finds the file not as it was left. From then on left says nothing, until
	// Refresh.
	meddled atomic.Bool
}

// OpenFiles opens dir, made if it is not there, for the content.
//
// Nothing is locked yet, so any number of Stores may serve content that is complete. If another one is writing
// the same content, in this process or another, OpenFiles returns ErrInUse.
func OpenFiles(c Content, dir string, log *slog.Logger) (Store, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	disk, err := openRoot(dir)
	if err != nil {
		return nil, err
	}
	s, err := OpenDisk(c, disk, dir, log)
	if err != nil {
		return nil, errors.Join(err, disk.Close())
	}
	return s, nil
}

// OpenDisk is OpenFiles for a directory that is open already. The Store closes the disk. If OpenDisk fails, the
// disk stays open.
func OpenDisk(c Content, disk Disk, dir string, log *slog.Logger) (Store, error) {
	s, err := openOn(c, disk, dir, log)
	if err != nil {
		return nil, err
	}
	if err := s.probe(); err != nil {
		return nil, errors.Join(err, s.handles.closeAll())
	}
	s.readResume()
	return s, nil
}

// openOn looks at the files that are there, and changes nothing.
func openOn(c Content, disk Disk, dir string, log *slog.Logger) (*fileStore, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &fileStore{
		content: c, dir: dir, disk: disk, log: log,
		reopen:      func() (Disk, error) { return openRoot(dir) },
		mapsAreMany: mapsAreMany,
		files:       make([]fileState, c.NumFiles()+1),
		slots:       make(map[int]int),
		dirtyDirs:   make(map[string]struct{}),
		scratch:     sync.Pool{New: func() any { return new([][]byte) }},
	}
	s.handles = newHandles(maxHandles, s.open)
	none := make(absentDirs)
	for i := range s.files {
		f := &s.files[i]
		if i == s.edgesFile() {
			f.name = s.sidecar(".edges.resume")
		} else if c.File(i).Pad {
			continue
		} else {
			f.name = s.ownName(i)
		}
		info, err := none.stat(disk, f.name)
		if missing(err) && i < s.edgesFile() {
			if found, err := s.findAlias(i, none); err != nil {
				return nil, err
			} else if found {
				continue
			}
		}
		switch {
		case missing(err):
		case err != nil:
			return nil, err
		case !info.Regular:
			return nil, &fs.PathError{Op: "open", Path: s.path(i), Err: errNotRegular}
		default:
			f.found(info)
			if i < s.edgesFile() && info.Size > c.File(i).Length {
				log.Warn("file is longer than the torrent says", "file", s.path(i), "bytes", info.Size, "torrent", c.File(i).Length)
			}
		}
	}
	if err := s.findTwins(); err != nil {
		return nil, err
	}
	if err := s.findSlots(); err != nil {
		return nil, errors.Join(err, s.handles.closeAll())
	}
	return s, nil
}

// ownName is the name of file i of the torrent under the directory.
func (s *fileStore) ownName(i int) string {
	return filepath.FromSlash(apartFromSidecars(s.content.File(i).Path))
}

// sidecar is the name of a file beside the content.
func (s *fileStore) sidecar(suffix string) string {
	return "." + hex.EncodeToString(s.content.InfoHash[:]) + suffix
}

// edgesFile is the index of the edges in files.
func (s *fileStore) edgesFile() int { return len(s.files) - 1 }

// path names file i in errors.
func (s *fileStore) path(i int) string { return filepath.Join(s.dir, s.files[i].name) }

// open opens file i for handles. With os.O_CREATE it makes the directories that lead there. The caller holds s.mu.
func (s *fileStore) open(i, flag int) (DiskFile, error) {
	name := s.files[i].name
	f, err := s.openRoomy(name, flag)
	if err != nil && flag&os.O_CREATE != 0 && errors.Is(err, fs.ErrNotExist) {
		if err := s.mkdirAll(filepath.Dir(name)); err != nil {
			return nil, notMade(err)
		}
		f, err = s.openRoomy(name, flag)
		err = notMade(err)
	}
	if err == nil && flag&os.O_CREATE != 0 {
		s.madeName(name)
	}
	return f, err
}

// openRoomy opens a file for which others that are not in use give way.
func (s *fileStore) openRoomy(name string, flag int) (f DiskFile, err error) {
	err = s.handles.makeRoom(func() (err error) {
		f, err = s.disk.Open(name, flag)
		return err
	})
	return f, err
}

func (s *fileStore) mkdirAll(name string) error {
	if name == "." {
		return nil
	}
	for dir := name; dir != "."; dir = filepath.Dir(dir) {
		s.madeName(dir)
	}
	return s.handles.makeRoom(func() error { return s.disk.MkdirAll(name) })
}

// madeName records that the next Sync is to sync the directory that holds name.
func (s *fileStore) madeName(name string) {
	s.dirtyMu.Lock()
	defer s.dirtyMu.Unlock()
	s.dirtyDirs[filepath.Dir(name)] = struct{}{}
}

func (s *fileStore) ReadAt(p []byte, off int64) (n int, err error) {
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

// readFile reads all of p from file i. The caller holds s.mu.
func (s *fileStore) readFile(i int, p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	h, err := s.handles.get(i, false, false)
	if refused(err) {
		return fmt.Errorf("%s: %w", s.path(i), fs.ErrNotExist)
	}
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

func (s *fileStore) WriteAt(p []byte, off int64) (int, error) {
	one := s.scratch.Get().(*[][]byte)
	defer s.scratch.Put(one)
	*one = append((*one)[:0], p)
	err := s.WriteBlocks(*one, off)
	clear(*one)
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// maxStep is how many bytes are written to a file before it is looked whether to go on.
const maxStep = 128 << 10

func (s *fileStore) Stop() { s.stopped.Store(true) }

func (s *fileStore) WriteBlocks(blocks [][]byte, off int64) error {
	total := int64(0)
	for _, b := range blocks {
		total += int64(len(b))
	}
	if err := s.makeReady(off, total); err != nil {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := checkWrite(&s.content, s.closed, off, total); err != nil {
		return err
	}
	part := s.scratch.Get().(*[][]byte)
	defer s.scratch.Put(part)
	r := run{blocks: blocks}
	for i := s.content.FileAt(off); total > 0; {
		f := s.content.File(i)
		if off == f.End() {
			i++
			continue
		}
		n := min(total, f.End()-off, maxStep)
		if s.stopped.Load() {
			return ErrClosed
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

// run is consecutive buffers of the content, of which some bytes were taken already.
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

// writeFile writes bufs to file i, and makes it if it is not there. The caller holds s.mu.
func (s *fileStore) writeFile(i int, bufs [][]byte, off int64) error {
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
	before, err := h.f.Stat()
	if err != nil {
		return err
	}
	if before.Gone {
		// Another program removed or replaced the file. What is written to the old one is lost.
		f.meddled.Store(true)
		s.handles.drop(i)
		again, err := s.handles.get(i, true, true)
		if err != nil {
			return err
		}
		s.handles.put(h)
		h = again
	} else if before.Stamp != f.left && (f.left != Stamp{} || before.Size > 0) {
		f.meddled.Store(true)
	}
	s.markDirty(i)
	f.written = true
	err = h.f.Writev(bufs, off)
	if s.move != nil {
		s.move.wrote(i, bufs, off)
	}
	// A write that failed may have changed the file, too.
	after, statErr := h.f.Stat()
	f.left = after.Stamp
	return cmp.Or(err, statErr)
}

// markDirty records that the next Sync is to sync file i. The caller holds s.files[i].mu.
func (s *fileStore) markDirty(i int) {
	if f := &s.files[i]; !f.dirty {
		f.dirty = true
		s.dirtyMu.Lock()
		s.dirtyFiles = append(s.dirtyFiles, i)
		s.dirtyMu.Unlock()
	}
}

// leftAs is how file i was left.
func (s *fileStore) leftAs(i int) Stamp {
	f := &s.files[i]
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.left
}

func (s *fileStore) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.closed = true
	return errors.Join(s.handles.closeAll(), s.release(), s.disk.Close())
}

func (s *fileStore) Rest() error { return s.Close() }

// Wake opens the directory again, and claims the files again, unless another download has claimed them since. How they were
// left is known still, so that what has changed since is noticed.
func (s *fileStore) Wake() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		return nil
	}
	disk, err := s.reopen()
	if err != nil {
		return err
	}
	s.disk, s.handles = disk, newHandles(maxHandles, s.open)
	if err := s.claim(s.wanted); err != nil {
		return errors.Join(err, disk.Close())
	}
	s.closed = false
	return nil
}
