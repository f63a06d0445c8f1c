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

// A Move takes these steps. Whenever it ends, by an error, a kill or a loss of power, one of the two directories holds all of the
// content: before step 6 the old one, and from then on the new one.
//
//  1. Make the new directory, take its lock and claim the paths, so that no other download writes there. Remove what an earlier
//     Move left there. It is an error if a file of another program or download has one of the names.
//  2. Copy the files that cannot be linked to a hidden directory in the new one, in parts, and sync the copies. Record what is
//     written to the old files meanwhile, and copy that afterwards. Sync the other files.
//  3. Make reads and writes wait. Copy what was written last, and give those copies the modification times of the old files.
//  4. Give all files their names in the new directory, by hard links or by renames from the hidden directory. None of the names
//     exists before, so nothing is overwritten. Then make the symbolic links of the torrent.
//  5. Sync those names, and then write the sidecar.
//  6. Let reads and writes continue in the new directory.
//  7. Remove the old names, beginning with the sidecar, and the old lock file. A file that another program changed while it was
//     copied stays.
//
// To rename the files would be simpler, but a kill between two renames would leave each directory with only a part of the
// content.

var errNoDirectory = fmt.Errorf("not in a directory: %w", errors.ErrUnsupported)

// move is the state of a Move.
type move struct {
	s        *fileStore
	ctx      context.Context
	to       Disk
	old      Disk   // the Disk that the content is moved from
	dir      string // the new directory
	at       Place  // likewise
	progress func(done, total int64)

	files    []int            // the files to move, by index in fileStore.files
	staged   map[int]bool     // files that are copied; the others are linked
	inPlace  map[int]FileInfo // what an earlier Move left in the new directory, by file
	aside    []aside          // what had names in the new directory that this Move has given to others
	finished map[int]Stamp    // copies with the size and modification time of the old file, as that was left
	placed   []string         // names made in the new directory, in order
	links    []string         // symbolic links of the torrent in the old directory
	madeDirs []string         // directories made in the new one, the outer before the inner
	emptied  map[string]bool  // directories in the old one from which names were removed
	release  bool             // release the lock at the end of the Move
	unlock   func(bool) error // unlocks the new directory until step 6, and the old one from then on
	names    map[int]string   // names of the files in placed
	after    map[int]FileInfo // the files in placed, as they are in the new directory
	left     map[int]Stamp    // how the old files of those in after were left, unless another program changed them
	done     int64            // bytes copied so far
	total    int64            // bytes to copy

	mu      sync.Mutex
	written map[int][]span // what was written to a file since its copy began, and is not copied yet
	void    map[int]bool   // files that must be copied again as a whole
	doubted map[int]bool   // files that another program changed, for which nothing is claimed
}

// An aside is a file that got another name in the new directory. It gets its own name back if the Move fails, and is removed if not.
type aside struct{ name, as string }

// span is a range of bytes of a file, from before to.
type span struct{ from, to int64 }

func (s *fileStore) Move(ctx context.Context, dir string, claims func() (bits.Set, map[int]bits.Set), progress func(done, total int64)) error {
	made, err := s.claims.makeRoot(s.content.InfoHash, dir)
	if err == nil {
		err = syncNames(made)
	}
	var disk Disk
	if err == nil {
		disk, err = s.claims.openRoot(dir)
	}
	if err == nil {
		if err = s.moveTo(ctx, disk, dir, claims, progress); err == nil {
			return nil
		}
		if closed := disk.Close(); err == errSameDir {
			return closed
		}
	}
	for _, dir := range made {
		if !s.claims.isOpen(wayTo(dir)) {
			os.Remove(dir) // fails if another program has put something there
		}
	}
	return err
}

// syncNames syncs the names of directories.
func syncNames(dirs []string) error {
	for _, d := range dirs {
		up, err := new(Claims).openRoot(filepath.Dir(d))
		if err != nil {
			continue // a directory that the process may not read
		}
		if err := errors.Join(up.SyncDir("."), up.Close()); err != nil {
			return err
		}
	}
	return nil
}

// errSameDir is returned by moveTo if there is nothing to move.
var errSameDir = errors.New("the same directory")

// moveTo is Move to a directory that is open. If it fails, the disk stays open.
func (s *fileStore) moveTo(
	ctx context.Context, to Disk, dir string, claims func() (bits.Set, map[int]bits.Set), progress func(done, total int64),
) error {
	m := &move{
		s: s, ctx: ctx, to: to, dir: dir, progress: progress,
		staged: make(map[int]bool), inPlace: make(map[int]FileInfo), after: make(map[int]FileInfo), left: make(map[int]Stamp), names: make(map[int]string), emptied: make(map[string]bool), finished: make(map[int]Stamp),
		written: make(map[int][]span), void: make(map[int]bool), doubted: make(map[int]bool),
	}
	have, _ := claims()
	wasLocked, err := m.begin(have)
	if err != nil {
		return err
	}
	defer func() {
		if !wasLocked || m.release {
			if err := s.Release(); err != nil { // the content is where the result of the Move says
				s.log.Warn("the directory stays locked", "err", err)
			}
		}
	}()
	err = m.prepare()
	if err == nil {
		err = m.copyAll(have)
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

// begin takes step 1, except that prepare removes what an earlier Move left. wasLocked reports whether the store held its lock
// before.
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
	m.at = placeOf(m.dir, there)
	if here.ID == there.ID && here.ID != (FileID{}) || filepath.Clean(s.dir) == filepath.Clean(m.dir) {
		return false, errSameDir
	}
	m.old = s.disk
	if same, err := m.sameDirs("."); err != nil {
		return false, fmt.Errorf("write to %s: %w", m.dir, err)
	} else if same {
		return false, m.sameFiles(have)
	}
	wasLocked = s.locked.Load()
	if err := m.lockOld(); err != nil {
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
	if _, err := s.claimOn(m.to, m.claim()); err != nil {
		return wasLocked, err
	}
	s.move = m
	return wasLocked, nil
}

// lockOld takes the lock of the old directory, unless its disk has no room for the file of a lock: then hardly any other Store
// can take it. The caller holds m.s.mu for writing.
func (m *move) lockOld() error {
	if err := m.s.lock(); !isFull(err) {
		return err
	}
	return nil
}

// sameDirs reports whether the directory dir below the new one is the directory dir below the old one. One may be a view of the
// other, as with FUSE and network file systems: then their files have different identities, but what is removed from one is
// removed from both. So sameDirs makes a file in one directory and looks for it in the other. The name is random, so that no
// system has a cached answer for it.
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

// sameFiles returns errSameDir if the old directory is a view of the new one and all files to move are there, so that nothing is to be done.
// If one is not, as where the old directory is a union of the new one and others, it returns another error. The caller holds s.mu.
func (m *move) sameFiles(have bits.Set) error {
	for i := range m.s.files {
		if !m.s.moves(i, have) {
			continue
		}
		name := m.s.files[i].name
		info, err := m.to.Stat(name)
		if absent(err) || err == nil && info.Size != m.s.leftAs(i).Size {
			return fmt.Errorf("%s shows what is in %s, but %s is elsewhere", m.s.dir, m.dir, name)
		} else if err != nil {
			return err
		}
	}
	return errSameDir
}

// prepare clears the new directory, makes the hidden one, and finds out which files must be copied.
func (m *move) prepare() error {
	if err := m.clear(); err != nil {
		return err
	}
	if err := m.to.MkdirAll(m.stage()); err != nil {
		return err
	}
	m.chooseStaged(m.files)
	return nil
}

// chooseStaged decides which of these files are copied, and reports whether any is.
func (m *move) chooseStaged(files []int) (some bool) {
	for _, i := range files {
		if m.ctx.Err() != nil || m.s.stopped.Load() {
			return some // and place ends the Move
		}
		if !m.canLink(i) {
			m.staged[i], some = true, true
			m.total += m.s.leftAs(i).Size
		}
	}
	return some
}

// claim returns the claims on the files and links that are, or will be, in the new directory. The caller holds m.s.mu for
// writing.
func (m *move) claim() (files []Claim) {
	s := m.s
	folds := s.asksCase(m.to, s.sidecar(".lock")) > 0
	for i := range s.edgesFile() {
		if name := s.files[i].name; name != "" && (s.files[i].here || s.isWanted(i)) {
			files = append(files, Claim{Path: filepath.ToSlash(name), ID: m.after[i].ID, AnyCase: folds})
		}
	}
	for i := range s.linked() {
		if k := &s.links[i]; s.isMade(k) {
			files = append(files, Claim{Path: k.path, AnyCase: folds})
		}
	}
	return files
}

// moves reports whether a Move moves file i: it does unless what is at its name may belong to another program. The caller holds
// s.mu.
func (s *fileStore) moves(i int, have bits.Set) bool {
	f := &s.files[i]
	f.mu.Lock() // it may be written meanwhile
	left, id, used := f.left, f.id, f.written || f.known || f.ours.Load()
	f.mu.Unlock()
	if f.name == "" || !f.here || left == (Stamp{}) {
		return false
	}
	if i == s.edgesFile() {
		return true
	}
	info, err := s.disk.Stat(f.name)
	gone := absent(err) || err == nil && info.Stamp != s.leftAs(i) && info.ID != id
	switch {
	case gone: // removed or replaced by another program
		return false
	case used:
		return true
	case s.content.File(i).Length == 0:
		return left.Size == 0 && s.isWanted(i)
	}
	return s.holdsAny(i, have)
}

// stage returns the name of the hidden directory, in the new one, for copies that are not whole.
func (m *move) stage() string { return m.s.sidecar(".move") }

// stagedName returns the name of the copy of file i in the hidden directory.
func (m *move) stagedName(i int) string { return filepath.Join(m.stage(), strconv.Itoa(i)) }

// asideName returns the name, in the hidden directory, of what had the name of file i.
func (m *move) asideName(i int) string { return m.stagedName(i) + ".old" }

// clear removes what an earlier Move left in the hidden directory, and puts back what that set aside. It is an error if the new directory
// has a file with the name of one to move, unless that is another link to it or an equal copy, as an earlier Move leaves them.
func (m *move) clear() error {
	s := m.s
	if _, err := m.to.Stat(m.stage()); !absent(err) {
		for i := range len(s.files) + 1 {
			if err := errors.Join(m.removeStaged(i), m.restore(i)); err != nil {
				return err
			}
		}
	}
	if err := removeIfPresent(m.to, filepath.Join(m.stage(), probeName)); err != nil {
		return err
	}
	if err := removeIfPresent(m.to, m.stage()); err != nil {
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
		if err != nil {
			return err
		}
		m.inPlace[i] = info
	}
	return m.findInTheWay()
}

// findInTheWay returns an error if a file exists in the new directory where a wanted file will be made later, which would
// overwrite it.
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

// leftover reports whether what exists at the name of file i in the new directory, described by info, was left by an earlier
// Move: another hard link to the file, or a copy with the same size, modification time and bytes.
func (m *move) leftover(i int, info FileInfo) (bool, error) {
	now, err := m.s.stat(i)
	switch {
	case err != nil || info.ID == FileID{} || !info.Regular:
		return false, err
	case info.ID == now.ID && info.Links <= 1:
		return false, nil // not another hard link: two paths lead to the only name
	case info.ID != now.ID && (info.Stamp != now.Stamp || m.s.isKnown(info.ID)):
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

// isKnown reports whether id is the identity of a file of the content.
func (s *fileStore) isKnown(id FileID) bool {
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

// probeName is the name, in the hidden directory, of the link that canLink makes.
const probeName = "probe"

// canLink reports whether file i can be linked into the new directory. It tries that with each file, because the answer may differ for
// files of one device: they may lie on several branches of a union, behind other mounts, or belong to another user.
func (m *move) canLink(i int) bool {
	m.s.mu.RLock() // keeps own, which would copy a file that has two names, from running meanwhile
	defer m.s.mu.RUnlock()
	if m.s.closed {
		return false
	}
	probe := filepath.Join(m.stage(), probeName)
	return m.s.disk.Link(m.s.files[i].name, m.to, probe) == nil && m.to.Remove(probe) == nil
}
