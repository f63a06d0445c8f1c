package storage

import (
	"path/filepath"
	"strings"

	"github.com/shoal-go/torrent/internal/safename"
)

// findAlike finds the files whose paths differ from another's in case alone.
func (s *fileStore) findAlike() {
	groups := make(map[string][]int)
	for i := range s.content.NumFiles() {
		if name := s.files[i].name; name != "" {
			key := safename.FoldCase(name)
			groups[key] = append(groups[key], i)
		}
	}
	s.alike = make(map[int][]int)
	for _, group := range groups {
		if len(group) > 1 {
			for _, i := range group {
				s.alike[i] = group
			}
		}
	}
}

// sameInCase is the first file of the content that is there and has the name of file i, which is there, but for its case, where
// the file system takes these for one; or -1. Identities do not always show that: where inodes are invented, each name has its own.
// The caller holds s.mu.
func (s *fileStore) sameInCase(i int) int {
	name := s.files[i].name
	if s.alike[i] == nil || !s.foldsCase(name) {
		return -1
	}
	for _, j := range s.alike[i] {
		f := &s.files[j]
		if j != i && (f.left != Stamp{}) && strings.EqualFold(f.name, name) {
			return j
		}
	}
	return -1
}

// foldsCase reports whether the file system takes names for one that differ in case alone. It asks for a file that is there, and the
// lock, until one of them shows it. The caller holds s.mu for writing.
func (s *fileStore) foldsCase(name string) bool {
	for _, there := range []string{name, s.sidecar(".lock")} {
		if s.folding == 0 {
			s.folding = s.asksCase(s.disk, there)
		}
	}
	return s.folding > 0
}

// asksCase is what seesCase says, or 0 if that failed, even though files that are not in use gave way.
func (s *fileStore) asksCase(disk Disk, name string) (folding int8) {
	_ = s.handles.makeRoom(func() (err error) {
		folding, err = seesCase(disk, name)
		return err
	})
	return folding
}

// seesCase is 1 if a disk takes names for one that differ in case alone, -1 if not, and 0 if the file of this name does not show it.
// It is shown by another name that leads to something, and yet not both are listed. What is seen of a file does not show it: where
// inodes are invented, one file has several, two files may have the same size and time, and both change while it is written.
func seesCase(disk Disk, name string) (int8, error) {
	name, other := inOtherCase(name)
	if other == "" {
		return 0, nil
	}
	if _, err := disk.Stat(other); absent(err) {
		if _, err := disk.Stat(name); err != nil {
			return 0, err
		}
		return -1, nil
	}
	listed, err := disk.Listed(name)
	if err == nil && listed {
		listed, err = disk.Listed(other)
	}
	switch {
	case err != nil:
		return 0, err
	case listed:
		return -1, nil
	}
	for _, name := range []string{name, other} { // unless one was removed meanwhile
		if _, err := disk.Stat(name); err != nil {
			return 0, err
		}
	}
	return 1, nil
}

// inOtherCase is as much of a path as ends in a name with a letter of ASCII, and the same with that letter in the other case; or two
// empty strings. Other letters some file systems take for one and some do not.
func inOtherCase(path string) (mine, other string) {
	for ; path != "."; path = filepath.Dir(path) {
		dir, base := filepath.Split(path)
		for i := range len(base) {
			if c := base[i] | 0x20; 'a' <= c && c <= 'z' {
				return path, dir + base[:i] + string(base[i]^0x20) + base[i+1:]
			}
		}
	}
	return "", ""
}
