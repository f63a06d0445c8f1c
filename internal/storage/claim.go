package storage

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shoal-go/torrent/internal/safename"
)

// Claimed is the error for a path that another download has claimed. It matches ErrInUse.
type Claimed struct {
	Path  string   // includes the directory
	Owner [20]byte // the info hash of the download's torrent
}

func (e *Claimed) Error() string {
	return fmt.Sprintf("%s: %v, of info hash %x", e.Path, ErrInUse, e.Owner)
}

func (e *Claimed) Unwrap() error { return ErrInUse }

// Claim is a claim on a file, or on a directory and all that is below it.
type Claim struct {
	Path string // slash-separated, under the directory
	ID   FileID // of the file, because another path may lead to it too; zero if it does not exist or is not claimed by identity

	// New is set if the file was just made, so that whoever else claimed its identity did so for a file that is gone.
	New bool

	// AnyCase is set where the file system ignores case in paths. Where inodes are invented, a claim on the identity of a file
	// does not keep other downloads from it.
	AnyCase bool
}

const (
	// maxLocks bounds the names that one call of Claim locks to keep other processes from them. Of more files the directories are
	// locked: for each lock, the system walks through all locks on the directory.
	maxLocks = 16
	// maxClaims bounds how many files are claimed one by one, and how many directories are searched for claims of others.
	maxClaims = 1024
)

// anyCase is the prefix of names of claims that ignore case. No path begins with it.
const anyCase = "\x00"

// names returns the names that c claims for a file at the given path.
func (c Claim) names(path string) []string {
	if c.AnyCase {
		return []string{path, anyCase + safename.FoldCase(path)}
	}
	return []string{path}
}

// claim claims the wanted files, so that no other download writes to them as long as the Store is open. Files that are not wanted
// are claimed if they exist, because bytes of theirs may be written in place. If another download has claimed one of these, the
// bytes are kept in the edges instead. A file that was found under another name is forgotten if another download has claimed it.
// undo takes back what was not claimed before. The caller holds s.mu for writing.
func (s *fileStore) claim(wanted []bool) (undo func(), err error) {
	for i := range s.content.NumFiles() {
		if f := &s.files[i]; s.folding == 0 && f.here && (f.left != Stamp{}) {
			s.foldsCase(f.name)
		}
	}
	var files []Claim
	var others []int
	for i := range s.content.NumFiles() {
		if s.content.File(i).Pad {
			continue
		}
		switch f := &s.files[i]; {
		case wanted[i] && f.alias:
			files = append(files, Claim{Path: filepath.ToSlash(s.ownName(i)), AnyCase: s.folding > 0})
			others = append(others, i)
		case wanted[i]:
			mine, err := s.claimFor(i)
			if err != nil {
				return nil, err
			}
			files = append(files, mine)
		case f.here:
			others = append(others, i)
		}
	}
	undoWanted, err := s.claimOn(s.disk, files)
	if err != nil || len(others) == 0 {
		return undoWanted, err
	}
	files = nil
	for _, i := range others {
		other, err := s.claimFor(i)
		if err != nil {
			undoWanted()
			return nil, err
		}
		files = append(files, other)
	}
	taken, undoOthers, err := s.claimEach(files)
	if err != nil {
		undoWanted()
		return nil, err
	}
	for _, k := range taken {
		s.forget(others[k])
	}
	if len(taken) > 0 && s.resumed != nil {
		s.confirm(s.resumed)
	}
	return func() { undoOthers(); undoWanted() }, nil
}

// claimOn claims files on a disk. If the system runs out of handles, it closes open files that are not in use.
func (s *fileStore) claimOn(disk Disk, files []Claim) (undo func(), err error) {
	err = s.handles.makeRoom(func() (err error) {
		undo, err = disk.Claim(s.content.InfoHash, files)
		return err
	})
	return undo, err
}

// claimEach claims those files that no other download has claimed, and returns the indices of the rest. If some are taken and there
// are too many to claim one by one, it claims none.
func (s *fileStore) claimEach(files []Claim) (taken []int, undo func(), err error) {
	undo, err = s.claimOn(s.disk, files)
	if !errors.Is(err, ErrInUse) {
		return nil, undo, err
	}
	var claimed []func()
	undo = func() {
		for _, undo := range slices.Backward(claimed) {
			undo()
		}
	}
	for k := range files {
		one, err := func() {}, ErrInUse
		if len(files) <= maxClaims {
			one, err = s.claimOn(s.disk, files[k:k+1])
		}
		switch {
		case err == nil:
			claimed = append(claimed, one)
		case errors.Is(err, ErrInUse):
			taken = append(taken, k)
		default:
			undo()
			return nil, nil, err
		}
	}
	return taken, undo, nil
}

// forget records that the file found for file i belongs to another download or program: file i is not here. The caller holds s.mu
// for writing.
func (s *fileStore) forget(i int) {
	f := &s.files[i]
	s.handles.drop(i)
	if s.move != nil {
		s.move.accepted(i)
	}
	if f.alias {
		f.name, f.alias = s.ownName(i), false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.here, f.left, f.id, f.links = false, Stamp{}, FileID{}, 0
	f.written, f.known, f.long = false, false, false
	f.ready.Store(false)
	f.ours.Store(false)
	f.distrusted.Store(false)
}

// claimFor returns the claim on file i. A file with several names, or a symbolic link, is claimed only by its path, because
// what it leads to is not written to: see own. claimFor returns an error only if the system is out of handles. The caller holds s.mu
// for writing.
func (s *fileStore) claimFor(i int) (Claim, error) {
	f := &s.files[i]
	c := Claim{Path: filepath.ToSlash(f.name), AnyCase: s.folding > 0}
	if f.links != 1 {
		return c, nil
	}
	if f.plain != f.id { // asked once: there may be 100,000 files, and the choice changes whenever one is opened
		if link, err := s.isLink(f.name); link || err != nil {
			return c, err
		}
		f.plain = f.id
	}
	c.ID = f.id
	return c, nil
}

// bounded returns files or, if they and their parent directories are more than most, directories that hold them. Only directly in
// the directory of the Disk may there be more.
func bounded(files []Claim, most int) []Claim {
	depth := 1
	for _, c := range files {
		depth = max(depth, strings.Count(c.Path, "/")+1)
	}
	for depth = min(depth, max(most, 1)); ; depth-- {
		if within, ok := upTo(files, depth, most); ok || depth == 1 {
			return within
		}
	}
}

// upTo returns files with every path cut to its first depth elements. It returns false if depth is more than 1, and they and their
// parent directories are more than most.
func upTo(files []Claim, depth, most int) (list []Claim, ok bool) {
	seen := make(map[string]struct{})
	for _, c := range files {
		if p := firstElements(c.Path, depth); p != c.Path {
			c = Claim{Path: p, AnyCase: c.AnyCase}
		}
		if _, ok := seen[c.Path]; ok {
			continue
		}
		list = append(list, c)
		for p := c.Path; p != "."; p = above(p) {
			if _, ok := seen[p]; ok {
				break
			}
			seen[p] = struct{}{}
		}
		if depth > 1 && len(seen) > most {
			return nil, false
		}
	}
	return list, true
}

// firstElements returns the first depth elements of p.
func firstElements(p string, depth int) string {
	for i := range len(p) {
		if p[i] == '/' {
			if depth--; depth == 0 {
				return p[:i]
			}
		}
	}
	return p
}
