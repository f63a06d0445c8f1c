package storage

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"
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

	// AnyCase is set where the file system ignores case in paths. Where inodes are invented, a claim on the identity of a file
	// does not keep other downloads from it.
	AnyCase bool
}

// maxClaims bounds the claims of one Store: for each, the system walks through all claims on the directory.
const maxClaims = 1024

// claim claims the wanted files, so that no other download writes to them as long as the Store is open. Files that are not wanted
// are claimed if they exist, because bytes of theirs may be written in place. If another download has claimed one of these, the
// bytes are kept in the edges instead. A file that was found under another name is forgotten if another download has claimed it.
// The caller holds s.mu for writing.
func (s *fileStore) claim(wanted []bool) error {
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
			files = append(files, s.claimFor(i))
		case f.here:
			others = append(others, i)
		}
	}
	if err := s.claimOn(s.disk, bounded(files)); err != nil || len(others) == 0 {
		return err
	}
	files = nil
	for _, i := range others {
		files = append(files, s.claimFor(i))
	}
	err := s.claimOn(s.disk, bounded(files))
	if !errors.Is(err, ErrInUse) {
		return err
	}
	taken := others
	if len(others) <= maxClaims {
		taken = nil
		for k, i := range others {
			err := s.claimOn(s.disk, files[k:k+1])
			if errors.Is(err, ErrInUse) {
				taken = append(taken, i)
			} else if err != nil {
				return err
			}
		}
	}
	for _, i := range taken {
		s.forget(i)
	}
	if s.resumed != nil {
		s.confirm(s.resumed)
	}
	return nil
}

// claimOn claims files on a disk. If the system runs out of handles, it closes open files that are not in use.
func (s *fileStore) claimOn(disk Disk, files []Claim) error {
	return s.handles.makeRoom(func() error { return disk.Claim(s.content.InfoHash, files) })
}

// forget records that the file found for file i belongs to another download or program: file i is not here. The caller holds s.mu
// for writing.
func (s *fileStore) forget(i int) {
	f := &s.files[i]
	s.handles.drop(i)
	if f.alias {
		f.name, f.alias = s.ownName(i), false
	}
	f.here, f.left, f.id, f.links = false, Stamp{}, FileID{}, 0
}

// claimFor returns the claim on file i. A file with several names is claimed only by its path, because it is not written to.
// The caller holds s.mu.
func (s *fileStore) claimFor(i int) Claim {
	f := &s.files[i]
	c := Claim{Path: filepath.ToSlash(f.name), AnyCase: s.folding > 0}
	if f.links == 1 {
		c.ID = f.id
	}
	return c
}

// bounded returns files or, if they are too many, directories that hold them.
func bounded(files []Claim) []Claim {
	depth := 0
	for _, c := range files {
		depth = max(depth, strings.Count(c.Path, "/")+1)
	}
	if within, ok := upTo(files, depth); ok {
		return within
	}
	for depth--; ; depth-- {
		within, ok := upTo(files, depth)
		if ok || depth <= 1 {
			return within
		}
	}
}

// upTo returns files with every path cut to its first depth elements. It returns false if they and their parent directories are
// more than maxClaims.
func upTo(files []Claim, depth int) (list []Claim, ok bool) {
	seen := make(map[string]struct{})
	for _, c := range files {
		if p := firstElements(c.Path, depth); p != c.Path {
			c = Claim{Path: p, AnyCase: c.AnyCase}
		}
		if _, ok := seen[c.Path]; ok {
			continue
		}
		list = append(list, c)
		for p := c.Path; p != "."; p = path.Dir(p) {
			if _, ok := seen[p]; ok {
				break
			}
			seen[p] = struct{}{}
		}
		if len(seen) > maxClaims {
			return list, false
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
