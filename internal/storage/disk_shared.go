package storage

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
)

// A sharedDir is an open directory, shared by all Disks of it that were opened by the same path. Whenever a handle of a directory
// is closed, the system walks through all locks on the directory, and each download has some.
type sharedDir struct {
	sharedID
	root  *os.Root
	self  *os.File     // the directory itself
	users int          // guarded by Claims.mu
	held  atomic.Int64 // by calls, and by all users together: whoever gives it back last closes the directory
}

// hold has the directory stay open until give, unless it is closed already. A Sync, for one, may go on after its Disk was closed, and
// something else may have the number of the descriptor then.
func (d *sharedDir) hold() bool {
	for {
		n := d.held.Load()
		if n == 0 {
			return false
		}
		if d.held.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (d *sharedDir) give() error {
	if d.held.Add(-1) > 0 {
		return nil
	}
	return errors.Join(d.self.Close(), d.root.Close())
}

// sharedID is the identity of a directory and the ways to it.
type sharedID struct {
	FileID        // zero if the directory is not shared
	name   string // by which it was opened
	whole  string // the absolute path, without symbolic links; empty if unknown
}

// place identifies the directory among those that are open, whatever path led to it.
func (id sharedID) place() dirID {
	if id.FileID == (FileID{}) {
		return dirID{path: id.whole}
	}
	return dirID{FileID: id.FileID}
}

// isOpen reports whether a directory is open as that of a Disk.
func (r *Claims) isOpen(id sharedID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open[id.place()] > 0
}

// wayTo returns the identity of a directory and the ways to it.
func wayTo(dir string) sharedID {
	whole, err := filepath.Abs(dir)
	if err == nil {
		whole, err = filepath.EvalSymlinks(whole)
	}
	if err != nil {
		whole = ""
	}
	return sharedID{identityAt(dir), dir, whole}
}

// openShared opens a directory, or returns one that is open. The caller passes it to closeShared.
func (r *Claims) openShared(dir string) (*sharedDir, error) {
	if info, err := os.Stat(dir); err != nil {
		return nil, err
	} else if !info.IsDir() { // opening a pipe would block
		return nil, &fs.PathError{Op: "open", Path: dir, Err: syscall.ENOTDIR}
	}
	id := wayTo(dir)
	if d := r.useShared(id); d != nil {
		return d, nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	self, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	d := &sharedDir{sharedID: id, root: root, self: self, users: 1}
	d.held.Store(1)
	shares := id.FileID != (FileID{}) && identityOf(self) == id.FileID
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.shared == nil {
		r.shared, r.open = make(map[sharedID]*sharedDir), make(map[dirID]int)
	}
	r.open[id.place()]++
	if shares {
		r.shared[id] = d
	}
	return d, nil
}

// useShared returns a directory that is open, or nil.
func (r *Claims) useShared(id sharedID) *sharedDir {
	r.mu.Lock()
	d := r.shared[id]
	if d != nil {
		d.users++
	}
	r.mu.Unlock()
	if d != nil && identityOf(d.self) != id.FileID { // a network share no longer has it
		r.closeShared(d)
		return nil
	}
	return d
}

// closeShared ends the use of d by one caller. The last one closes it.
func (r *Claims) closeShared(d *sharedDir) error {
	r.mu.Lock()
	d.users--
	last := d.users == 0
	if last && r.shared[d.sharedID] == d { // two may have opened it at once
		delete(r.shared, d.sharedID)
	}
	if last {
		if p := d.place(); r.open[p] > 1 {
			r.open[p]--
		} else {
			delete(r.open, p)
		}
	}
	r.mu.Unlock()
	if !last {
		return nil
	}
	return d.give()
}
