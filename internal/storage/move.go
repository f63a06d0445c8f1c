package storage

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/shoal-go/torrent/internal/bits"
)

// A Move takes these steps. Whenever it ends, by an error, a kill or a loss of power, one of the two directories holds
// all of the content. Before the sixth step that is the old one, and from then on the new one.
//
//  1. The new directory is made, its lock taken and the paths claimed, so that nothing else writes there. What an earlier Move
//     left there is removed. A file of anyone else in the place of one of ours is an error.
//  2. Files that cannot be linked are copied to a hidden directory, by parts, and synced. What is written to the old ones
//     meanwhile is recorded and copied afterwards. What is not synced yet of the others is.
//  3. Reads and writes wait from here on. What was written last is copied, and the copies get the times of their files.
//  4. All files get their names in the new directory: by hard links, or from the hidden one. None of them is there before, so
//     nothing is overwritten. The symbolic links that the torrent has follow.
//  5. Those names are synced, and then the sidecar is written.
//  6. Reads and writes go to the new directory.
//  7. The old names are removed, the sidecar first, and the old lock. A file that another program changed while it was copied stays.
//
// A rename would be simpler, but of two files renamed one after the other only one is there after a kill.

var errNoDirectory = fmt.Errorf("not in a directory: %w", errors.ErrUnsupported)

// move is the state of a Move.
type move struct {
	s        *fileStore
	ctx      context.Context
	to       Disk
	old      Disk // that the content is on at first
	dir      string
	progress func(done, total int64)

	files    []int            // that are moved, by index in fileStore.files
	linkable map[uint64]bool  // by the device that a file is on
	staged   map[int]bool     // those that were copied; others are linked
	placed   []string         // names that were made, in order
	links    []string         // symbolic links in the old directory that are the torrent's
	madeDirs []string         // directories that were made, the outer before the inner
	release  bool             // the lock is not needed any more after this
	unlock   func(bool) error // of the new directory
	names    map[int]string   // of what was placed
	after    map[int]FileInfo // of what was placed
	left     map[int]Stamp    // how the old files of what was copied were left
	done     int64            // bytes that were copied
	total    int64            // bytes to copy

	mu      sync.Mutex
	written map[int][]span // since the copy of a file began, and not copied since
	void    map[int]bool   // files that have to be copied again
}

// span is a part of a file.
type span struct{ from, to int64 }

func (s *fileStore) Move(ctx context.Context, dir string, claims func() (bits.Set, map[int]bits.Set), progress func(done, total int64)) error {
	made, err := mkdirAll(dir)
	if err != nil {
		return err
	}
	disk, err := openRoot(dir)
	if err == nil {
		if err = s.moveTo(ctx, disk, dir, claims, progress); err == nil {
			return nil
		}
		if closed := disk.Close(); err == errSameDir {
			return closed
		}
	}
	for _, dir := range made {
		os.Remove(dir) // unless it is in use by now
	}
	return err
}

// mkdirAll makes dir, and returns the directories that it made, the inner before the outer. Their names are synced.
func mkdirAll(dir string) (made []string, err error) {
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		made = append(made, d)
		if d == filepath.Dir(d) {
			break
		}
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	for _, d := range made {
		up, err := openRoot(filepath.Dir(d))
		if err != nil {
			continue // one that we may not read
		}
		if err := errors.Join(up.SyncDir("."), up.Close()); err != nil {
			return made, err
		}
	}
	return made, nil
}

// errSameDir is returned by moveTo if there is nothing to move.
var errSameDir = errors.New("the same directory")

// moveTo is Move to a directory that is open. If it fails, the disk stays open.
func (s *fileStore) moveTo(ctx context.Context, to Disk, dir string, claims func() (bits.Set, map[int]bits.Set), progress func(done, total int64)) (err error) {
	m := &move{
		s: s, ctx: ctx, to: to, dir: dir, progress: progress,
		linkable: make(map[uint64]bool), staged: make(map[int]bool), after: make(map[int]FileInfo), left: make(map[int]Stamp), names: make(map[int]string),
		written: make(map[int][]span), void: make(map[int]bool),
	}
	have, _ := claims()
	wasLocked, err := m.begin(have)
	if err != nil {
		return err
	}
	defer func() {
		if !wasLocked || m.release {
			err = errors.Join(err, s.Release())
		}
	}()
	err = m.prepare()
	if err == nil {
		err = m.copyAll()
	}
	if err == nil {
		err = m.commit(claims)
	}
	if err != nil {
		s.mu.Lock()
		s.move = nil
		s.mu.Unlock()
		return errors.Join(err, m.undo())
	}
	if err := m.removeOld(); err != nil {
		s.log.Warn("moved, but the old files stay", "err", err)
	}
	return nil
}

// begin is the first step.
func (m *move) begin(have bits.Set) (wasLocked bool, err error) {
	s := m.s
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return false, ErrClosed
	case s.move != nil:
		return false, fmt.Errorf("%s: %w", s.dir, ErrInUse)
	}
	here, err := s.disk.Stat(".")
	if err != nil {
		return false, err
	}
	there, err := m.to.Stat(".")
	if err != nil {
		return false, err
	}
	if here.ID == there.ID && here.ID != (FileID{}) || filepath.Clean(s.dir) == filepath.Clean(m.dir) {
		return false, errSameDir
	}
	m.old = s.disk
	if same, err := m.sameDirs("."); err != nil {
		return false, fmt.Errorf("write to %s: %w", m.dir, err)
	} else if same {
		return false, errSameDir
	}
	wasLocked = s.locked.Load()
	if err := s.lock(); err != nil {
		return wasLocked, err
	}
	defer func() {
		if err != nil {
			if m.unlock != nil {
				err = errors.Join(err, m.unlock(true))
			}
			if !wasLocked {
				err = errors.Join(err, s.release())
			}
		}
	}()
	if m.unlock, err = m.to.Lock(s.sidecar(".lock"), true); err != nil {
		return wasLocked, fmt.Errorf("write to %s: %w", m.dir, err)
	}
	for i := range s.files {
		if s.moves(i, have) {
			m.files = append(m.files, i)
		}
	}
	if err := s.claimOn(m.to, bounded(m.claim())); err != nil {
		return wasLocked, err
	}
	s.move = m
	return wasLocked, nil
}

// sameDirs reports whether a directory below the new one is that of the same name below the old one. Where one is a view of the
// other, as with file systems of FUSE or of a network, their files have different identities, and what is removed from one is gone
// from both. So a file is made in one, and looked for in the other: by a name that no system remembers.
func (m *move) sameDirs(dir string) (same bool, err error) {
	name := filepath.Join(dir, m.s.sidecar(".move."+rand.Text()))
	err = m.s.handles.makeRoom(func() error {
		f, err := m.to.Open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
		if err != nil {
			return err
		}
		return f.Close()
	})
	if err != nil {
		return false, err
	}
	_, err = m.old.Stat(name)
	if same = err == nil; absent(err) {
		err = nil
	}
	return same, errors.Join(err, m.to.Remove(name))
}

// prepare clears the new directory, and finds out which files must be copied.
func (m *move) prepare() error {
	if err := m.clear(); err != nil {
		return err
	}
	if err := m.to.MkdirAll(m.stage()); err != nil {
		return err
	}
	for _, i := range m.files {
		if !m.canLink(i) {
			m.staged[i] = true
			m.total += m.s.leftAs(i).Size
		}
	}
	return nil
}

// claim is the claims on what is, or will be, in the new directory. The caller holds m.s.mu.
func (m *move) claim() (files []Claim) {
	s := m.s
	folds := s.asksCase(m.to, s.sidecar(".lock")) > 0
	for i := range s.edgesFile() {
		if name := s.files[i].name; name != "" && (s.files[i].here || s.isWanted(i)) {
			files = append(files, Claim{filepath.ToSlash(name), m.after[i].ID, folds})
		}
	}
	for i := range s.linked() {
		if k := &s.links[i]; s.isMade(k) {
			files = append(files, Claim{Path: k.path, AnyCase: folds})
		}
	}
	return files
}

// moves reports whether file i is ours: other programs may have put something else in its place. The caller holds s.mu.
func (s *fileStore) moves(i int, have bits.Set) bool {
	f := &s.files[i]
	switch {
	case f.name == "" || !f.here || f.left == Stamp{}:
		return false
	case i == s.edgesFile() || f.written || f.known || f.ready.Load():
		return true
	case s.content.File(i).Length == 0:
		return f.left.Size == 0 && s.isWanted(i)
	}
	return s.holdsAny(i, have)
}

// stage is the directory for copies that are not whole, and staged the name of one in it.
func (m *move) stage() string           { return m.s.sidecar(".move") }
func (m *move) stagedName(i int) string { return filepath.Join(m.stage(), strconv.Itoa(i)) }

// clear removes what an earlier Move left in the new directory. Names in use by others are an error.
func (m *move) clear() error {
	s := m.s
	if _, err := m.to.Stat(m.stage()); !absent(err) {
		for i := range s.files {
			if err := m.removeStaged(i); err != nil {
				return err
			}
		}
	}
	if err := m.to.Remove(filepath.Join(m.stage(), probeName)); err != nil && !absent(err) {
		return err
	}
	if err := m.to.Remove(m.stage()); err != nil && !absent(err) {
		return err
	}
	for _, i := range m.files {
		name := s.nameOf(i)
		info, err := m.to.Stat(name)
		if absent(err) {
			continue
		}
		ours := false
		if err == nil {
			ours, err = m.leftover(i, info)
		}
		if err == nil && !ours {
			err = &fs.PathError{Op: "move to", Path: filepath.Join(m.dir, name), Err: fs.ErrExist}
		}
		if err == nil {
			err = m.to.Remove(name)
		}
		if err != nil {
			return err
		}
	}
	if err := m.findInTheWay(); err != nil {
		return err
	}
	name := s.sidecar(".resume")
	if err := m.to.Remove(name); err != nil && !absent(err) {
		return err
	}
	return nil
}

// findInTheWay is an error if a file lies where one that is wanted will be made later: it would be overwritten then.
func (m *move) findInTheWay() error {
	s := m.s
	moved := make(map[int]bool)
	for _, i := range m.files {
		moved[i] = true
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	none := make(absentDirs)
	for i := range s.content.NumFiles() {
		f := s.content.File(i)
		if moved[i] || f.Pad || f.Length == 0 || !s.isWanted(i) {
			continue
		}
		if _, err := none.stat(m.to, s.files[i].name); !missing(err) {
			return cmp.Or(err, error(&fs.PathError{Op: "move to", Path: filepath.Join(m.dir, s.files[i].name), Err: fs.ErrExist}))
		}
	}
	return nil
}

// leftover reports whether info, of what lies in the place of file i in the new directory, is of another name of the file itself,
// or of a copy that a Move has made: with its size, time and bytes.
func (m *move) leftover(i int, info FileInfo) (bool, error) {
	now, err := m.s.stat(i)
	switch {
	case err != nil || info.ID == FileID{} || !info.Regular:
		return false, err
	case info.ID == now.ID && info.Links <= 1:
		return false, nil // another path leads to the only one
	case info.ID != now.ID && (info.Stamp != now.Stamp || m.s.isOurs(info.ID)):
		return false, nil
	}
	if same, err := m.sameDirs(filepath.Dir(m.s.nameOf(i))); err != nil || same {
		return false, err
	}
	if info.ID == now.ID {
		return true, nil
	}
	return m.sameBytes(i, info.Size)
}

// isOurs reports whether a file of the content has an identity.
func (s *fileStore) isOurs(id FileID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i := range s.files {
		if s.files[i].id == id {
			return true
		}
	}
	return false
}

func (s *fileStore) nameOf(i int) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.files[i].name
}

func (s *fileStore) stat(i int) (FileInfo, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return FileInfo{}, ErrClosed
	}
	return s.disk.Stat(s.files[i].name)
}

const probeName = "probe"

// canLink reports whether file i can have another name in the new directory.
func (m *move) canLink(i int) bool {
	m.s.mu.RLock() // so that no write to the file sees both names
	defer m.s.mu.RUnlock()
	if m.s.closed {
		return false
	}
	f := &m.s.files[i]
	can, known := m.linkable[f.id.Dev]
	if !known {
		probe := filepath.Join(m.stage(), probeName)
		can = m.s.disk.Link(f.name, m.to, probe) == nil
		if can {
			can = m.to.Remove(probe) == nil
		}
		m.linkable[f.id.Dev] = can
	}
	return can
}
