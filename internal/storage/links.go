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
	// maxLinks is how many symbolic links of a torrent are made, and maxLinkHops how many others one may lead through.
	maxLinks    = 10_000
	maxLinkHops = 8
)

// A link is a symbolic link of the torrent (BEP 47) that may be made: what it leads to is a file or a directory of the torrent, and
// nothing else of the torrent lies at its path or below.
type link struct {
	path   string // slash-separated, under the directory
	target string // likewise
	final  string // what it leads to, through other links
	file   int    // the index of final, or -1 for a directory
}

// linksOf returns the links of the content that may be made. It looks at paths alone.
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
				again = true // others may lead through it
			}
		}
	}
	return slices.DeleteFunc(links, func(k link) bool { _, ok := at[k.path]; return !ok })
}

// A linkTree is what linksOf looks at.
type linkTree struct {
	files map[string]int
	dirs  map[string]bool
	links []link
	at    map[string]int // index in links, of those that nothing stands in the way of
}

// resolve finds out what k leads to, and reports whether that is something of the torrent, and no directory that k lies in.
func (t *linkTree) resolve(k *link) bool {
	k.final, k.file = "", -1
	whole := k.target
	for hops, end := 0, 0; end < len(whole); {
		begin := end // of the next element
		if end > 0 {
			begin++
		}
		if n := strings.IndexByte(whole[begin:], '/'); n >= 0 {
			end = begin + n
		} else {
			end = len(whole)
		}
		k.final = whole[:end] // no copy: a path may have very many elements, and so may thousands of links
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

// linkTo is the name of a link, and where it is to lead as seen from its directory. The caller holds s.mu.
func (s *fileStore) linkTo(k *link) (name, target string, err error) {
	name, target = filepath.FromSlash(k.path), filepath.FromSlash(k.target)
	if k.file >= 0 && k.target == k.final {
		target = s.files[k.file].name // which the file system may have demanded
	}
	target, err = filepath.Rel(filepath.Dir(name), target)
	return name, target, err
}

// linked returns the links that may be made.
func (s *fileStore) linked() []link {
	s.linksOnce.Do(func() { s.links = linksOf(s.content.Layout) })
	return s.links
}

// makeLinks makes the symbolic links of the torrent that lead to something that is wanted, all of which is complete. Nothing gives
// way to a link, nor does what another download has claimed. What cannot be made is left out; that there is no handle for it is an
// error, which passes. The caller holds s.mu for writing.
func (s *fileStore) makeLinks() error {
	links := s.linked()
	if len(links) == 0 {
		return nil
	}
	wanted := make(map[string]bool) // directories
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
	var failed, taken error
	if len(due) > maxClaims {
		taken = s.claimOn(s.disk, bounded(places))
	}
	left := 0
	for i, k := range due {
		err := taken
		if len(due) <= maxClaims {
			err = s.claimOn(s.disk, places[i:i+1])
		}
		if err == nil {
			err = s.handles.makeRoom(func() error { return s.makeLink(k) })
		}
		if Exhausted(err) {
			return err
		} else if err != nil {
			failed = err
			left++
		}
	}
	if left > 0 {
		s.log.Warn("symbolic links are left out", "links", left, "err", failed)
	}
	return nil
}

// isMade reports whether a link is there. The caller holds s.mu.
func (s *fileStore) isMade(k *link) bool {
	name, target, err := s.linkTo(k)
	if err != nil {
		return false
	}
	is, err := s.disk.Readlink(name)
	return err == nil && is == target
}

// makeLink makes a link where nothing is. The caller holds s.mu for writing.
func (s *fileStore) makeLink(k *link) error {
	name, target, err := s.linkTo(k)
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

// placeLinks makes the links in the new directory that are in the old one. The caller holds m.s.mu.
func (m *move) placeLinks() error {
	s := m.s
	links := s.linked()
	for i := range links {
		if !s.isMade(&links[i]) {
			continue // or by another program
		}
		name, target, err := s.linkTo(&links[i])
		if err != nil {
			return err
		}
		m.links = append(m.links, name)
		if is, err := m.to.Readlink(name); err == nil && is == target {
			continue
		}
		if err := m.makeDir(filepath.Dir(name)); err != nil {
			return err
		}
		err = m.to.Symlink(target, name)
		switch {
		case err == nil:
			m.placed = append(m.placed, name)
		case errors.Is(err, fs.ErrExist):
			return &fs.PathError{Op: "move to", Path: filepath.Join(m.dir, name), Err: fs.ErrExist}
		default:
			s.log.Warn("a symbolic link is not moved", "err", err) // the file system has none
		}
	}
	return nil
}

// removeDirs removes directories of the old directory, the inner first, as far as they are empty.
func (m *move) removeDirs(dir string) {
	for ; dir != "." && m.old.Remove(dir) == nil; dir = filepath.Dir(dir) {
	}
}
