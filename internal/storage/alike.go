package storage

import (
	"path/filepath"
	"strings"

	"github.com/shoal-go/torrent/internal/safename"
)

// findAlike finds the files whose paths differ from another file's only in case.
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

// sameInCase returns the first other file of the content that exists and whose name differs from that of file i only in case, if
// the file system treats the two names as one; otherwise it returns -1. File i exists. Identities do not always show this: some
// file systems invent an inode for each name. The caller holds s.mu for writing.
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

// foldsCase reports whether the file system ignores case in names. It tries the file of the given name, which should exist, and
// then the lock file, until one of them shows it. The caller holds s.mu for writing.
func (s *fileStore) foldsCase(name string) bool {
	for _, there := range []string{name, s.sidecar(".lock")} {
		if s.folding == 0 {
			s.folding = s.asksCase(s.disk, there)
		}
	}
	return s.folding > 0
}

// asksCase is seesCase, but closes open files that are not in use if the system runs out of handles. It returns 0 on an error.
func (s *fileStore) asksCase(disk Disk, name string) (folding int8) {
	_ = s.handles.makeRoom(func() (err error) {
		folding, err = seesCase(disk, name)
		return err
	})
	return folding
}

// seesCase returns 1 if a disk ignores case in names, -1 if it does not, and 0 if the file of this name does not show it. The
// disk ignores case if the name in the other case leads to a file too, but the directory does not list both names. A comparison
// of the two FileInfos would not show it: where inodes are invented, one file has several; two files may have the same size and
// modification time; and both of these change while a file is written.
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

// inOtherCase returns the longest leading part of path whose last element has an ASCII letter, and the same with the first such
// letter of that element in the other case. It returns two empty strings if no element has one. Letters outside ASCII do not
// serve: file systems that ignore case differ in how they treat those.
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
