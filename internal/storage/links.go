package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shoal-go/torrent/internal/layout"
)

const (
	maxLinks    = 10_000 // symbolic links of a torrent that are made, at most
	maxLinkHops = 8      // other links that one may lead through, at most
)

// A link is a symbolic link of the torrent (BEP 47) that may be made: it leads to a file or a directory of the torrent, and
// nothing else of the torrent lies at its path or below.
type link struct {
	path   string // slash-separated, relative to the directory
	target string // likewise
	final  string // where it leads once other links are resolved
	file   int    // the index of the file final, or -1 for a directory
}

// linksOf returns the links of the content that may be made. It uses only the paths in the layout.
func linksOf(l layout.Layout) (links []link) {
	files := make(map[string]int)
	dirs := make(map[string]bool)
	at := make(map[string]int) // index in links
	for i, f := range l.Files() {
		switch {
		case f.Link != "" && (apartFromSidecars(f.Path) != f.Path || apartFromSidecars(f.Link) != f.Link):
		case f.Link != "" && len(links) < maxLinks:
			if _, ok := at[f.Path]; !ok {
				at[f.Path] = len(links)
				links = append(links, link{path: f.Path, target: f.Link})
			}
		case !f.Pad:
			files[f.Path] = i
			for dir := path.Dir(f.Path); dir != "." && !dirs[dir]; dir = path.Dir(dir) {
				dirs[dir] = true
			}
		}
	}
	if len(links) == 0 {
		return nil
	}
	for p := range at {
		_, isFile := files[p]
		blocked := isFile || dirs[p]
		for dir := path.Dir(p); dir != "." && !blocked; dir = path.Dir(dir) {
			_, isFile := files[dir]
			_, isLink := at[dir]
			blocked = isFile || isLink
		}
		if blocked {
			delete(at, p)
		}
	}
	t := linkTree{files, dirs, links, at}
	for again := true; again; {
		again = false
		for p, i := range at {
			if !t.resolve(&links[i]) {
				delete(at, p)
				again = true // other links may lead through this one
			}
		}
	}
	return slices.DeleteFunc(links, func(k link) bool { _, ok := at[k.path]; return !ok })
}

// A linkTree is the paths of a torrent, in which its links are resolved.
type linkTree struct {
	files map[string]int
	dirs  map[string]bool
	links []link
	at    map[string]int // path to index in links, of those that may still be made
}

// resolve sets k.final and k.file, and reports whether k leads to a file or directory of the torrent, but to none that contains
// k.
func (t *linkTree) resolve(k *link) bool {
	k.final, k.file = "", -1
	whole := k.target
	for hops, end := 0, 0; end < len(whole); {
		begin := end // where the next element begins
		if end > 0 {
			begin++
		}
		if n := strings.IndexByte(whole[begin:], '/'); n >= 0 {
			end = begin + n
		} else {
			end = len(whole)
		}
		k.final = whole[:end] // no copy: thousands of links may each have very many elements
		if i, ok := t.at[k.final]; ok {
			if hops++; hops > maxLinkHops {
				return false
			}
			whole, end = t.links[i].target+whole[end:], 0
			k.final = ""
		} else if i, ok := t.files[k.final]; ok {
			k.file = i
			return end == len(whole)
		} else if !t.dirs[k.final] {
			return false
		}
	}
	return k.final != "" && !strings.HasPrefix(k.path, k.final+"/")
}

// linkTo returns the name of a link and its target, relative to the directory of the link. The caller holds s.mu.
func (s *fileStore) linkTo(k *link) (name, target string, err error) {
	name, target = filepath.FromSlash(k.path), filepath.FromSlash(k.target)
	if k.file >= 0 && k.target == k.final {
		target = s.files[k.file].name // may not be the torrent's name for the file, if the file system does not allow that
	}
	target, err = filepath.Rel(filepath.Dir(name), target)
	return name, target, err
}

// A realDirs is the directories of a Disk that are known to be no symbolic links.
type realDirs map[string]bool

// check returns an error if one of the directories from which a link goes up to its target is itself a symbolic link, made by the user or
// for another torrent: then the link would lead to something else. It looks from the outer to the inner, and at no directory that does
// not exist.
func (d realDirs) check(disk Disk, name, target string) error {
	var dirs []string
	dir := filepath.Dir(name)
	for element := range strings.SplitSeq(target, string(filepath.Separator)) {
		if element != ".." {
			break
		}
		dirs = append(dirs, dir)
		dir = filepath.Dir(dir)
	}
	for _, dir := range slices.Backward(dirs) {
		if d[dir] {
			continue
		}
		_, err := disk.Readlink(dir)
		switch {
		case err == nil:
			return fmt.Errorf("%s: below a symbolic link, %s", name, dir)
		case Exhausted(err):
			return err
		case absent(err):
			return nil
		}
		d[dir] = true
	}
	return nil
}

// linked returns the links that may be made.
func (s *fileStore) linked() []link {
	s.linksOnce.Do(func() { s.links = linksOf(s.content.Layout) })
	return s.links
}

// makeLinks makes the symbolic links of the torrent that lead to a wanted file, or to a directory that holds one. All wanted
// files are complete. makeLinks replaces nothing that exists, and makes no link at a path that another download has claimed. It
// leaves out links that it cannot make, but returns an error if the system is out of handles. The caller holds s.mu for writing.
func (s *fileStore) makeLinks() error {
	links := s.linked()
	if len(links) == 0 {
		return nil
	}
	wanted := make(map[string]bool) // directories that hold wanted files
	for i := range s.content.NumFiles() {
		if f := s.content.File(i); !f.Pad && s.isWanted(i) {
			for dir := path.Dir(f.Path); dir != "." && !wanted[dir]; dir = path.Dir(dir) {
				wanted[dir] = true
			}
		}
	}
	var due []*link
	var places []Claim
	for i := range links {
		k := &links[i]
		if (k.file >= 0 && s.isWanted(k.file) || k.file < 0 && wanted[k.final]) && !s.isMade(k) {
			due = append(due, k)
			places = append(places, Claim{Path: k.path, AnyCase: s.folding > 0})
		}
	}
	taken, _, err := s.claimEach(places)
	if Exhausted(err) {
		return err
	}
	var failed error
	left, real := 0, make(realDirs)
	for i, k := range due {
		if s.stopped.Load() {
			return ErrClosed
		}
		err := err
		if _, isTaken := slices.BinarySearch(taken, i); isTaken {
			err = ErrInUse
		} else if err == nil {
			err = s.handles.makeRoom(func() error { return s.makeLink(k, real) })
		}
		if Exhausted(err) {
			return err
		} else if err != nil {
			failed = err
			left++
		}
	}
	if left > 0 {
		s.log.Warn("some symbolic links could not be made", "links", left, "err", failed)
	}
	return nil
}

// claimLinks claims the links that an earlier run made, so that no other download writes through them. undo takes back
// what was not claimed before. The caller holds s.mu for writing.
func (s *fileStore) claimLinks() (undo func(), err error) {
	made := false
	for i := 0; i < s.edgesFile() && !made; i++ {
		if f := s.content.File(i); f.Link != "" {
			if made, err = s.isLink(filepath.FromSlash(f.Path)); err != nil {
				return nil, err
			}
		}
	}
	if !made { // as almost always: the links need not be resolved
		return func() {}, nil
	}
	var places []Claim
	links := s.linked()
	for i := range links {
		if k := &links[i]; s.isMade(k) {
			places = append(places, Claim{Path: k.path, AnyCase: s.folding > 0})
		}
	}
	if len(places) == 0 {
		return func() {}, nil
	}
	return s.claimOn(s.disk, places)
}

// isMade reports whether a link exists, with the right target. The caller holds s.mu.
func (s *fileStore) isMade(k *link) bool {
	name, target, err := s.linkTo(k)
	if err != nil {
		return false
	}
	is, err := s.disk.Readlink(name)
	return err == nil && is == target
}

// makeLink makes a link. It fails if its name exists. The caller holds s.mu for writing.
func (s *fileStore) makeLink(k *link, real realDirs) error {
	name, target, err := s.linkTo(k)
	if err == nil {
		err = real.check(s.disk, name, target)
	}
	if err != nil {
		return err
	}
	if _, err := s.disk.Readlink(name); !absent(err) {
		return fmt.Errorf("%s: %w", filepath.Join(s.dir, name), fs.ErrExist)
	}
	if err := s.lock(); err != nil {
		return err
	}
	err = s.disk.Symlink(target, name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := s.mkdirAll(filepath.Dir(name)); err != nil {
			return err
		}
		err = s.disk.Symlink(target, name)
	}
	if err == nil {
		s.madeName(name)
	}
	return err
}

// placeLinks makes in the new directory those links that exist in the old one. The caller holds m.s.mu.
func (m *move) placeLinks() error {
	s := m.s
	links, real := s.linked(), make(realDirs)
	for i := range links {
		if !s.isMade(&links[i]) {
			continue // absent, or made by another program with another target
		}
		name, target, err := s.linkTo(&links[i])
		if err != nil {
			return err
		}
		m.links = append(m.links, name)
		if is, err := m.to.Readlink(name); err == nil && is == target {
			continue
		}
		if err = real.check(m.to, name, target); err == nil {
			if err := m.makeDir(filepath.Dir(name)); err != nil {
				return err
			}
			err = m.to.Symlink(target, name)
		}
		switch {
		case err == nil:
			m.placed = append(m.placed, name)
		case errors.Is(err, fs.ErrExist):
			return &fs.PathError{Op: "move to", Path: filepath.Join(m.dir, name), Err: fs.ErrExist}
		default:
			s.log.Warn("a symbolic link is not moved", "err", err) // as where the file system has no symbolic links
		}
	}
	return nil
}
