package storage

import (
	"strings"
	"unicode"

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
	for _, j := range s.alike[i] {
		f := &s.files[j]
		if j != i && (f.left != Stamp{}) && strings.EqualFold(f.name, name) && s.foldsCase(name) {
			return j
		}
	}
	return -1
}

// foldsCase reports whether the file system takes names for one that differ in case alone. It asks once, for a file that is there, by
// a name that no file of the content has. The caller holds s.mu for writing.
func (s *fileStore) foldsCase(name string) bool {
	if s.folding == 0 {
		s.folding = s.asksCase(name)
	}
	return s.folding > 0
}

// asksCase is 1 if the file system finds a file, which is there, by a name in another case, -1 if not, and 0 if that cannot be told.
func (s *fileStore) asksCase(name string) int8 {
	swapped := strings.Map(func(r rune) rune {
		if upper := unicode.ToUpper(r); upper != r {
			return upper
		}
		return unicode.ToLower(r)
	}, name)
	for _, other := range []string{swapped, strings.ToUpper(name), strings.ToLower(name)} {
		if other == name || s.hasName(other) {
			continue
		}
		mine, err := s.disk.Stat(name)
		if err != nil {
			return 0
		}
		theirs, err := s.disk.Stat(other)
		switch {
		case absent(err):
			return -1
		case err != nil:
			return 0
		}
		return isOne(mine, theirs)
	}
	return 0
}

// isOne is 1 if two names lead to one file, -1 if to two, as where another download has a file by the other name, and 0 if that cannot
// be told. Where inodes are invented, their numbers differ although the file is one. So two files of the same size and time count as
// one: then a name is refused that could be had, which is better than two downloads that write to one file.
func isOne(a, b FileInfo) int8 {
	switch {
	case a.Stamp != b.Stamp:
		return -1
	case a.ID == b.ID && a.Links > 1:
		return 0 // it may have both names
	}
	return 1
}

func (s *fileStore) hasName(name string) bool {
	for i := range s.files {
		if s.files[i].name == name {
			return true
		}
	}
	return false
}
