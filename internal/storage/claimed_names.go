package storage

import (
	"iter"
	"slices"
	"sort"
	"strings"
)

// claimedNames are the names that are claimed in one directory, sorted by name. They take no memory for the directories between,
// of which a torrent may have a hundred times as many as files.
type claimedNames []claimedName

type claimedName struct {
	name string
	by   *claimant
}

// at returns the claimant of a name, or nil.
func (s claimedNames) at(name string) *claimant {
	if s = s.from(name); len(s) > 0 && s[0].name == name {
		return s[0].by
	}
	return nil
}

// from returns the names that are not less than name.
func (s claimedNames) from(name string) claimedNames {
	return s[sort.Search(len(s), func(i int) bool { return s[i].name >= name }):]
}

// add adds sorted names, of which none is claimed.
func (s *claimedNames) add(names []string, by *claimant) {
	old := len(*s) - 1
	all := slices.Grow(*s, len(names))[:len(*s)+len(names)]
	*s = all
	for at := len(all) - 1; len(names) > 0; at-- {
		if last := len(names) - 1; old < 0 || all[old].name < names[last] {
			all[at] = claimedName{names[last], by}
			names = names[:last]
		} else {
			all[at] = all[old]
			old--
		}
	}
}

// remove removes the names for which the function which returns true.
func (s *claimedNames) remove(which func(claimedName) bool) {
	*s = slices.DeleteFunc(*s, which)
	if cap(*s) >= 1024 && len(*s) < cap(*s)/4 {
		*s = append(make(claimedNames, 0, len(*s)), *s...)
	}
}

// around yields the claims on name, on the directories that hold it and on what is below it.
func (s claimedNames) around(name string) iter.Seq[claimedName] {
	return func(yield func(claimedName) bool) {
		path := name + "/"
		for i := range len(path) {
			if path[i] != '/' {
				continue
			}
			if s = s.from(path[:i]); len(s) > 0 && s[0].name == path[:i] && !yield(s[0]) {
				return
			}
			if s = s.below(path[:i+1]); len(s) == 0 {
				return
			}
		}
		for _, n := range s {
			if !yield(n) {
				return
			}
		}
	}
}

// below returns the names below a directory, whose path ends in a slash.
func (s claimedNames) below(dir string) claimedNames {
	s = s.from(dir)
	return s[:sort.Search(len(s), func(i int) bool { return !strings.HasPrefix(s[i].name, dir) })]
}
