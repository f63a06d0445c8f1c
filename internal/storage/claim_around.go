package storage

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// A file lies below each of its parent directories, and any of these may be the directory of a download. So before a file is
// claimed in one directory, the directories above and below that are searched for claims on it.

// A claimTable answers who has claimed what in one directory, other than one owner.
type claimTable interface {
	any() (owner [20]byte, ok bool)
	// claimed returns the owner of a claim on name, on a directory that holds it or on something below it.
	claimed(name string) (owner [20]byte, ok bool)
	claimedFile(id FileID) (owner [20]byte, ok bool)
}

// taken returns a *Claimed, with a path as in files, if another owner has claimed one of the files in a directory. The function
// within returns the path of a file below that directory, "." if the directory is the file or below it, or false if it is neither.
//
// Most torrents have a directory of their own, and thousands of these may lie in one place: a directory without claims is not
// searched for each file.
func taken(t claimTable, files []Claim, within func(string) (string, bool)) error {
	someone, some := t.any()
	if !some {
		return nil
	}
	claimed := func(f Claim) (by [20]byte, ok bool) {
		name, ok := within(f.Path)
		switch {
		case !ok:
			return by, false
		case name == ".":
			return someone, true
		}
		for _, name := range f.names(name) {
			if by, ok := t.claimed(name); ok {
				return by, true
			}
		}
		if f.ID == (FileID{}) || f.New {
			return by, false
		}
		return t.claimedFile(f.ID)
	}
	for _, f := range files {
		if by, ok := claimed(f); ok {
			return &Claimed{Path: f.Path, Owner: by}
		}
	}
	return nil
}

// above is the directory that holds what lies at p.
func above(p string) string {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i]
	}
	return "."
}

// itself is the function within for the directory that the paths of files are below.
func itself(p string) (string, bool) { return p, true }

// makeRoot makes the directory dir and its parents for a download of an owner, unless another owner has claimed a file at the path of
// one: the directory would keep that file from being made. It returns those that it made, the inner before the outer.
func (r *Claims) makeRoot(owner [20]byte, dir string) (made []string, err error) {
	for d := filepath.Clean(dir); d != filepath.Dir(d); d = filepath.Dir(d) {
		if _, err := os.Stat(d); !absent(err) {
			break
		}
		made = append(made, d)
	}
	if len(made) == 0 {
		return nil, nil // openRoot finds out what is there
	}
	up := filepath.Dir(made[len(made)-1])
	if disk, err := r.openRoot(up); err == nil { // or it may be traversed but not read
		defer disk.Close()
		within, err := filepath.Rel(up, made[0])
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("%s/%s%x", filepath.ToSlash(within), anyCase, owner) // that of nothing else
		_, err = disk.Claim(owner, []Claim{{Path: name, AnyCase: true}})
		var taken *Claimed
		if errors.As(err, &taken) {
			return nil, &Claimed{Path: dir, Owner: taken.Owner}
		} else if err != nil {
			return nil, err
		}
	}
	return made, os.MkdirAll(dir, 0o777)
}

// A nestedDir is a directory above or below that of a Disk.
type nestedDir struct {
	dir    *claimDir
	within func(string) (string, bool)
}

// nested returns the directories above and below the disk's that may have claims on files. The result is not nil.
func (d *rootDisk) nested(files []Claim) (list []nestedDir, err error) {
	list = []nestedDir{}
	err = d.around(files, func(n nestedDir) error {
		list = append(list, n)
		return nil
	})
	return list, err
}

// takenAround returns a *Claimed if another owner has claimed one of the files in a directory above or below this one.
func (d *rootDisk) takenAround(c *claimant, files []Claim) error {
	locks := bounded(files, maxLocks)
	return d.around(files, func(n nestedDir) error {
		d.claims.mu.Lock()
		err := taken(registered{n.dir, c.owner}, files, n.within)
		d.claims.mu.Unlock()
		if err == nil {
			err = n.dir.locked(c, locks, n.within)
		}
		return err
	})
}

// around calls look for the directories above and below the disk's that may be those of other downloads of the same files.
func (d *rootDisk) around(files []Claim, look func(nestedDir) error) error {
	try := func(f *os.File, err error, path string, within func(string) (string, bool)) error {
		if Exhausted(err) {
			return err
		} else if err != nil {
			return nil // it does not exist, is a file, or may be traversed but not read
		}
		e := d.claims.use(f, path)
		defer d.claims.drop(e)
		return look(nestedDir{e, within})
	}
	prefix := "."
	for dir := d.whole; dir != "" && dir != filepath.Dir(dir); {
		prefix = path.Join(filepath.Base(dir), prefix)
		dir = filepath.Dir(dir)
		f, err := os.Open(dir)
		here := prefix
		if err := try(f, err, dir, func(p string) (string, bool) { return here + "/" + p, true }); err != nil {
			return err
		}
	}
	below := make(map[string]bool)
	for _, c := range bounded(files, maxClaims) {
		p := c.Path
		if c.ID != (FileID{}) {
			p = above(p) // a file exists here
		}
		for ; p != "." && !below[p]; p = above(p) {
			below[p] = true
		}
	}
	gone := make(map[string]bool)
	for _, dir := range slices.Sorted(maps.Keys(below)) { // the outer before the inner
		if gone[above(dir)] {
			gone[dir] = true
			continue
		}
		f, err := d.openBelow(dir)
		gone[dir] = absent(err)
		if err := try(f, err, filepath.Join(d.path(), dir), func(p string) (string, bool) { return within(dir, p) }); err != nil {
			return err
		}
	}
	return nil
}

// within returns the path of p below dir, "." if dir is p or below it, or false if it is neither.
func within(dir, p string) (string, bool) {
	if rest, ok := strings.CutPrefix(p, dir); ok && rest != "" && rest[0] == '/' {
		return rest[1:], true
	}
	rest, ok := strings.CutPrefix(dir, p)
	return ".", ok && (rest == "" || rest[0] == '/')
}

// inDir puts the whole path into a *Claimed.
func (d *rootDisk) inDir(err error) error {
	var e *Claimed
	if errors.As(err, &e) {
		return &Claimed{Path: filepath.Join(d.root.Name(), filepath.FromSlash(e.Path)), Owner: e.Owner}
	}
	return err
}
