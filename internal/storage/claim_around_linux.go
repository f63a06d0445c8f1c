package storage

import (
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A file lies below each of its parent directories, and any of these may be the directory of a download. So before a file is
// claimed in one directory, the directories above and below that are searched for claims on it. A directory without claims
// needs a single lock query.

// takenAround returns a *Claimed if another owner has claimed one of the files in a directory above or below this one.
func (d *rootDisk) takenAround(files []Claim, owner [20]byte) error {
	within := "."
	for dir := d.whole; dir != "" && dir != filepath.Dir(dir); {
		within = path.Join(filepath.Base(dir), within)
		dir = filepath.Dir(dir)
		above, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
		if Exhausted(err) {
			return err
		} else if err != nil {
			continue // a directory that may be traversed but not read
		}
		err = d.takenIn(above, files, owner, func(f Claim) string { return path.Join(within, f.Path) })
		if err != nil {
			return err
		}
	}
	below := make(map[string][]Claim)
	for _, f := range files {
		for p := f.Path; p != "."; p = above(p) {
			below[p] = append(below[p], f)
		}
	}
	for p, files := range below {
		dir, err := d.openBelow(p)
		if Exhausted(err) {
			return err
		} else if err != nil {
			continue // p does not exist or is a file
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

// openBelow opens a directory within this one. An os.Root goes there step by step, and so to all that lead to a deep one in the
// square of their number.
func (d *rootDisk) openBelow(p string) (*os.File, error) {
	var fd int
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH}
	err := ignoringEINTR(func() (err error) {
		fd, err = unix.Openat2(int(d.self.Fd()), p, &how)
		return err
	})
	switch {
	case err == nil:
		return os.NewFile(uintptr(fd), p), nil
	case absent(err) || Exhausted(err):
		return nil, err
	}
	return d.root.OpenFile(p, os.O_RDONLY|unix.O_DIRECTORY, 0) // the path is too long for one call, or the system has no such call
}

// takenIn returns a *Claimed if another owner has claimed one of the files in dir. The function name returns the path of a file
// below dir, or "." for dir itself. takenIn closes dir.
func (d *rootDisk) takenIn(dir *os.File, files []Claim, owner [20]byte, name func(Claim) string) error {
	defer dir.Close()
	held, any := heldWithin(dir, 0, 0)
	if !any {
		return nil
	}
	others := newNeighbours()
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
