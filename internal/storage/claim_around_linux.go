package storage

import (
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The same file lies under each of the directories that lead to it, and a download may have any of these as its own. So what is
// claimed in one is looked for in those above it and below it. Where there is none, that is one question a directory.

// takenAround is a *Claimed if another owner has claimed one of the files in a directory above this one, or in one below it.
func (d *rootDisk) takenAround(files []Claim, owner [20]byte) error {
	within := "."
	for dir := d.whole; dir != "" && dir != filepath.Dir(dir); {
		within = path.Join(filepath.Base(dir), within)
		dir = filepath.Dir(dir)
		above, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
		if Exhausted(err) {
			return err
		} else if err != nil {
			continue // we may pass through, and not look at it
		}
		err = d.takenIn(above, files, owner, func(f Claim) string { return path.Join(within, f.Path) })
		if err != nil {
			return err
		}
	}
	below := make(map[string][]Claim)
	for _, f := range files {
		for p := f.Path; p != "."; p = path.Dir(p) {
			below[p] = append(below[p], f)
		}
	}
	for p, files := range below {
		dir, err := d.root.OpenFile(filepath.FromSlash(p), os.O_RDONLY|unix.O_DIRECTORY, 0)
		if Exhausted(err) {
			return err
		} else if err != nil {
			continue // not there, or a file
		}
		err = d.takenIn(dir, files, owner, func(f Claim) string {
			if f.Path == p {
				return "."
			}
			return f.Path[len(p)+1:]
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// takenIn is a *Claimed if another owner has claimed one of the files in dir, which has them under other names, or itself by the
// name ".". It closes dir.
func (d *rootDisk) takenIn(dir *os.File, files []Claim, owner [20]byte, name func(Claim) string) error {
	defer dir.Close()
	held, any := heldWithin(dir, 0, 0)
	if !any {
		return nil
	}
	others := make(neighbours)
	for _, f := range files {
		name := name(f)
		if name != "." {
			if err := d.taken(dir, others, name, f, owner); err != nil {
				return err
			}
			continue
		}
		by := held.Len - 1
		if held.Start >= ownerTable {
			by = (held.Start &^ ownerTable) >> partBits >> 2
		}
		if whole, _ := wholeOwner(dir, by); whole != owner {
			return &Claimed{Path: filepath.Join(d.root.Name(), filepath.FromSlash(f.Path)), Owner: whole}
		}
	}
	return nil
}
