package storage

import (
	"cmp"
	"context"
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
	"time"
)

// fileStore keeps the content in files under one directory, as other clients do: each file at its path, and sparse until it is
// written. Bytes of files that are not wanted but share a piece with a wanted one go to one more file, the edges.
//
// The resume sidecar lies beside the content while it is not complete, and the lock file while the store writes. The edges, the
// sidecar and the lock file are named for the info hash.
type fileStore struct {
	content Content
	dir     string
	place   atomic.Value // a Place
	disk    Disk
	claims  *Claims // in which the files of other directories are claimed, too
	log     *slog.Logger

	// mu is held for writing to change which file holds a byte, and for reading by every read and write of bytes.
	mu     sync.RWMutex
	closed bool
	move   *move       // the Move in progress, or nil
	files  []fileState // by index in the layout; the last one is the edges
	wanted []bool      // by index in the layout, from the last SetWanted

	ownNames  func() map[string]struct{} // listOwnNames, called once
	linksOnce sync.Once
	links     []link // the result of linked

	handles *handles
	stopped atomic.Bool

	copyMu   sync.Mutex   // held while a file is replaced with a copy, or the directory changes; taken before mu
	closing  atomic.Bool  // Close waits for copyMu
	mount    atomic.Int32 // how often the directory was opened again
	reopenMu sync.Mutex   // held while that is tried; taken before resumeMu and copyMu
	reopenAt time.Time    // not tried before then; guarded by reopenMu

	maps        mapCount
	kept        Disk // a closed store's Disk, whose claims keep the files as its maps show them; guarded by mu
	mapsAreMany func() bool

	resumeMu sync.Mutex                      // one SaveResume, Sync or end of a Move at a time; taken before mu
	resumed  *resume                         // the claims of an earlier run's sidecar that still hold; nil without a sidecar
	saved    atomic.Pointer[[sha1.Size]byte] // the checksum of the sidecar on disk; nil if there is none of this content

	lockMu sync.Mutex
	unlock func(remove bool) error // nil while the lock is not held
	locked atomic.Bool

	slotMu    sync.Mutex
	slots     map[int]int  // piece to the number of its slot in the edges
	drafts    map[int]bool // whether a piece is a draft, once a block of it was written
	numDrafts atomic.Int32 // those that are

	dirtyMu    sync.Mutex
	dirtyFiles []int               // written since the last Sync
	dirtyDirs  map[string]struct{} // directories in which names were made since then
	syncFailed error               // of a Sync; it stays, because a later sync does not report what that one lost

	folding int8          // 1 if the file system ignores case in names, -1 if not, 0 if that is not known; guarded by mu
	alike   map[int][]int // a file to the files whose paths equal its own but for case, itself included

	scratch sync.Pool // of *[][]byte: the part of a run that lies in one file
}

// fileState is the state of one file. It is kept small, because torrents of 100,000 files are not rare.
type fileState struct {
	name string // relative to the directory, in the system's form; "" for padding
	here bool   // its bytes are in the file, wanted or not, and not in the edges; guarded by fileStore.mu

	// As of when the file was found or made. Guarded by fileStore.mu, as is name.
	id    FileID
	plain FileID // id when the name was last found to be no symbolic link
	links int
	twin  bool // another file of the content is the same file on the file system
	alias bool // read under a name that is not its own, until Settle finds out whether it is this file

	leftAlone bool // it existed and might be of another program when a write to it was due, and was not wanted; guarded by fileStore.mu

	// ready is set once a write to the file changes no other file. It is set by own, or by makeNew, which holds mu, and
	// fileStore.mu for reading.
	ready atomic.Bool
	// ours is set while the file, as it was left, cannot belong to another program: it was made by this store, was empty, or a
	// piece of it was verified. It ends when the file is found not to be as it was left.
	ours atomic.Bool

	// mu is held while the file is written, so that a change of its stamp meanwhile is known to be this store's own.
	mu      sync.Mutex
	left    Stamp // as the last write of this store left the file, or as it was found; zero if it does not exist
	dirty   bool  // among dirtyFiles
	durable bool  // what was found is known to be on disk, or the file has been among dirtyFiles since
	written bool  // by this store, or by an earlier run that did not complete the content
	known   bool  // an earlier run recorded it with bytes of the content, and no longer than the torrent says
	long    bool  // too long when this store wrote to it, or an earlier run had a part of it: it is to be cut
	writing atomic.Bool
	copies  atomic.Int32 // how often it was replaced with a copy
	// meddled is set when a write finds that the file is not as it was left. Until Refresh, left then means nothing.
	meddled    atomic.Bool
	distrusted atomic.Bool // meddled since the directory was opened again, and not read until Refresh
}

// OpenDisk is Claims.OpenFiles for a directory that is open already. The Store closes the disk. If OpenDisk fails, the
// disk stays open.
func OpenDisk(c Content, disk Disk, dir string, log *slog.Logger) (Store, error) {
	return openDisk(new(Claims), c, disk, dir, log)
}

func openDisk(r *Claims, c Content, disk Disk, dir string, log *slog.Logger) (Store, error) {
	s, err := openOn(context.Background(), r, c, disk, dir, log)
	if err != nil {
		return nil, err
	}
	err = s.probe()
	if err == nil {
		err = s.readResume()
	}
	if err != nil {
		return nil, errors.Join(err, s.handles.closeAll())
	}
	return s, nil
}

// openOn finds the files that exist, and changes nothing. It looks at no further file once ctx has ended.
func openOn(ctx context.Context, r *Claims, c Content, disk Disk, dir string, log *slog.Logger) (*fileStore, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &fileStore{
		content: c, dir: dir, disk: disk, log: log,
		claims:      r,
		mapsAreMany: mapsAreMany,
		files:       make([]fileState, c.NumFiles()+1),
		slots:       make(map[int]int),
		drafts:      make(map[int]bool),
		dirtyDirs:   make(map[string]struct{}),
		scratch:     sync.Pool{New: func() any { return new([][]byte) }},
	}
	s.handles = newHandles(&s.claims.idle, s.open)
	s.ownNames = sync.OnceValue(s.listOwnNames)
	root, _ := disk.Stat(".")
	s.place.Store(placeOf(dir, root))
	none := make(absentDirs)
	for i := range s.files {
		if err := ended(ctx); err != nil {
			return nil, err
		}
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

// ownName returns the name of file i as the torrent has it, relative to the directory.
func (s *fileStore) ownName(i int) string {
	return filepath.FromSlash(apartFromSidecars(s.content.File(i).Path))
}

// sidecar returns the name of a file beside the content: a dot, the info hash and the suffix.
func (s *fileStore) sidecar(suffix string) string {
	return "." + hex.EncodeToString(s.content.InfoHash[:]) + suffix
}

// edgesFile is the index of the edges in files.
func (s *fileStore) edgesFile() int { return len(s.files) - 1 }

// path returns the path of file i for errors and logs.
func (s *fileStore) path(i int) string { return filepath.Join(s.dir, s.files[i].name) }

// open opens file i for handles. With os.O_CREATE it makes its parent directories. The caller holds s.mu.
func (s *fileStore) open(i, flag int) (DiskFile, error) {
	name := s.files[i].name
	f, err := s.openRoomy(name, flag)
	// A Move, or another program, may remove a directory that is still empty.
	for n := 0; n < 4 && flag&os.O_CREATE != 0 && errors.Is(err, fs.ErrNotExist); n++ {
		if err = s.mkdirAll(filepath.Dir(name)); err == nil {
			f, err = s.openRoomy(name, flag)
		}
		err = notMade(err)
	}
	if err == nil && flag&os.O_CREATE != 0 {
		s.madeName(name)
	}
	return f, err
}

// openRoomy opens a file. If the system runs out of handles, it closes open files that are not in use.
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

// madeName has the next Sync sync the directory that holds name.
func (s *fileStore) madeName(name string) {
	s.dirtyMu.Lock()
	defer s.dirtyMu.Unlock()
	s.dirtyDirs[filepath.Dir(name)] = struct{}{}
}

func (s *fileStore) Place() Place { return s.place.Load().(Place) }

// readAt is ReadAt, but does not open the directory again.
func (s *fileStore) readAt(p []byte, off int64) (n int, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := checkRead(&s.content, s.closed, off); err != nil {
		return 0, err
	}
	drafts := s.numDrafts.Load() > 0
	for i := s.content.FileAt(off); n < len(p) && off < s.content.Size(); {
		f := s.content.File(i)
		if off == f.End() {
			i++
			continue
		}
		part := p[n : n+int(min(int64(len(p)-n), f.End()-off))]
		draft := false
		if drafts && !f.Pad { // padding may be of no piece
			piece := s.content.PieceAt(off)
			part, draft = part[:min(int64(len(part)), s.content.PieceEnd(piece)-off)], s.isDraft(piece)
		}
		switch {
		case f.Pad:
			clear(part)
		case draft:
			err = s.readEdges(part, off)
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
	if err := s.trusted(i); err != nil {
		return err
	}
	h, err := s.handles.get(i, false, false)
	if refused(err) {
		return fmt.Errorf("%s: %w", s.path(i), fs.ErrNotExist)
	}
	if err != nil {
		return err
	}
	defer s.handles.put(h)
	if err = readFull(h.f, p, off); errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%s: %w", s.path(i), err)
	} else if err != nil {
		s.handles.drop(i) // a network share that is back may not know it any more
	}
	return err
}

// maxStep is how many bytes are written or copied before the next check whether to stop.
const maxStep = 128 << 10

func (s *fileStore) Stop() { s.stopped.Store(true) }

func (s *fileStore) WriteBlocks(blocks [][]byte, off int64) error {
	if err := s.writeBlocks(blocks, off, true); err != nil {
		return err
	}
	return s.isVerified(s.content.PieceAt(off))
}

// writeBlocks writes blocks to the files, or to the edges if they are of files that are not wanted. Unless they are verified, it
// returns ErrChanged at a file that is not ours.
func (s *fileStore) writeBlocks(blocks [][]byte, off int64, verified bool) error {
	total := int64(0)
	for _, b := range blocks {
		total += int64(len(b))
	}
	write := func() error {
		return untilOwned(
			func() error { return s.makeReady(off, total, verified) },
			func() error { return s.writeReady(blocks, off, total, verified) },
		)
	}
	mount := s.mount.Load()
	err := write()
	if err != nil && !errors.Is(err, ErrChanged) && !s.stopped.Load() && s.reopen(mount, true) {
		err = write()
	}
	return err
}

// writeReady is writeBlocks once makeReady has returned. It returns errShared if a file needs makeReady again.
func (s *fileStore) writeReady(blocks [][]byte, off, total int64, verified bool) error {
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
			err = s.writeFile(i, *part, off-f.Offset, verified)
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

// run is a sequence of consecutive buffers of the content, from the front of which bytes are taken.
type run struct {
	blocks [][]byte
	taken  int // bytes of blocks[0]
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

// writeFile writes bufs to file i. It writes nothing and returns errShared if another program removed or replaced the file since own, or
// gave it another name, and ErrChanged if the file is not ours and bufs are not verified. The caller holds s.mu.
func (s *fileStore) writeFile(i int, bufs [][]byte, off int64, verified bool) error {
	f := &s.files[i]
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writing.Store(true)
	defer f.writing.Store(false)
	h, err := s.handles.get(i, true, i == s.edgesFile())
	if absent(err) {
		return s.shared(i)
	}
	if errors.Is(err, fs.ErrPermission) && s.holds(i, bufs, off) {
		return nil // it is whole, and only a neighbour lacks the piece
	}
	if err != nil {
		return err
	}
	defer func() { s.handles.put(h) }()
	before, err := h.f.Stat()
	if err != nil {
		return err
	}
	before.Gone = before.Gone || s.isElsewhere(i, before)
	changed := before.Gone || before.Stamp != f.left && (f.left != Stamp{} || before.Size > 0)
	if changed {
		f.ours.Store(before.Size == 0)
	}
	known := !changed || f.meddled.Swap(true)
	if i < s.edgesFile() && (!f.ready.Load() || before.Gone || !known || before.Links > max(1, f.links) || verified && !f.ours.Load() && !s.isWanted(i)) {
		return s.shared(i)
	}
	if !verified && !f.ours.Load() {
		return s.refuse(i)
	}
	if before.Gone {
		// Another program removed or replaced the edges. Writes to the old ones would be lost.
		s.handles.drop(i)
		again, err := s.handles.get(i, true, true)
		if err != nil {
			return err
		}
		s.handles.put(h)
		h = again
	}
	s.markDirty(i)
	f.written = true
	f.long = f.long || i < s.edgesFile() && before.Size > s.content.File(i).Length
	err = h.f.Writev(bufs, off)
	if s.move != nil {
		s.move.wrote(i, bufs, off)
	}
	// A write that failed may have changed the file as well.
	after, statErr := h.f.Stat()
	if statErr != nil {
		f.meddled.Store(true) // as far as is known
	} else {
		f.left = after.Stamp
	}
	return cmp.Or(err, statErr)
}

func (s *fileStore) Close() error {
	s.closing.Store(true)
	s.copyMu.Lock()
	defer s.copyMu.Unlock()
	s.closing.Store(false)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.closed = true
	return errors.Join(s.handles.closeAll(), s.release(), s.closeDisk())
}
