package storage

import (
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// Claims is the registry of what the downloads of one client have claimed, in whatever directories. It decides between these
// downloads, file by file and on every system. What other processes and clients have claimed is asked of the system, where that
// can tell. The zero Claims is ready for use. Its methods may be called from any goroutine.
//
// No system call is made under mu, so that a network share that does not answer stops no claims elsewhere.
type Claims struct {
	idle idleHandles // of the Stores of OpenFiles; has its own mutex

	mu     sync.Mutex
	dirs   map[dirID]*claimDir
	shared map[sharedID]*sharedDir // directories that are open
	open   map[dirID]int           // likewise, those that are not shared, too: how many times
}

// dirID identifies a directory as long as it is open.
type dirID struct {
	FileID
	path string // without symbolic links; only where directories have no identity
}

// A claimDir is what is claimed in one directory. It exists as long as a Disk has claims in the directory, or looks for such
// claims. Guarded by Claims.mu, except for self and locks.
type claimDir struct {
	dirID
	self  *os.File // the directory; the locks of all claims in it are held on this
	users int
	locks lockTable

	claimants map[[20]byte]*claimant
	names     claimedNames         // what is claimed by name
	files     map[FileID]*claimant // what is claimed by identity
	most      int                  // of the identities that were ever claimed since files was made
}

// A claimant is the claims of one owner in one directory. They end when all its Disks of the directory are closed. Guarded by
// Claims.mu, except for locks.
type claimant struct {
	owner [20]byte
	dir   *claimDir
	disks int
	names int // how many it has in dir.names
	ids   []FileID
	locks ownLocks
}

// OpenFiles returns a Store that keeps the content in files under dir, and claims them here. It makes dir if it does not exist.
//
// OpenFiles locks nothing yet, so any number of Stores may serve the same complete content. If another Store is writing the
// content to dir, in this process or another, OpenFiles returns ErrInUse.
func (r *Claims) OpenFiles(c Content, dir string, log *slog.Logger) (Store, error) {
	if _, err := r.makeRoot(c.InfoHash, dir); err != nil {
		return nil, err
	}
	disk, err := r.openRoot(dir)
	if err != nil {
		return nil, err
	}
	s, err := openDisk(r, c, disk, dir, log)
	if err != nil {
		return nil, errors.Join(err, disk.Close())
	}
	return s, nil
}

// use returns the registry's entry for a directory that is open, until drop. f belongs to the registry from then on.
func (r *Claims) use(f *os.File, path string) *claimDir {
	id := dirID{FileID: identityOf(f)}
	if id.FileID == (FileID{}) {
		id.path = path
	}
	r.mu.Lock()
	e, known := r.dirs[id]
	if !known {
		if r.dirs == nil {
			r.dirs = make(map[dirID]*claimDir)
		}
		e = &claimDir{dirID: id, self: f}
		r.dirs[id] = e
	}
	e.users++
	r.mu.Unlock()
	if known {
		f.Close()
	}
	return e
}

// useKnown is use for a directory that is open and has claims, or returns nil: then it opens nothing.
func (r *Claims) useKnown(id FileID) *claimDir {
	if id == (FileID{}) {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.dirs[dirID{FileID: id}]
	if e != nil {
		e.users++
	}
	return e
}

func (r *Claims) drop(e *claimDir) {
	r.mu.Lock()
	e.users--
	last := e.users == 0
	if last {
		delete(r.dirs, e.dirID)
	}
	r.mu.Unlock()
	if last {
		e.self.Close()
	}
}

// join returns the claimant of an owner in the directory e. It keeps the caller's use of e until leave.
func (r *Claims) join(e *claimDir, owner [20]byte) *claimant {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := e.claimants[owner]
	if c == nil {
		if e.claimants == nil {
			e.claimants = make(map[[20]byte]*claimant)
			e.files = make(map[FileID]*claimant)
		}
		c = &claimant{owner: owner, dir: e}
		e.claimants[owner] = c
	}
	c.disks++
	return c
}

// leave ends the use of c by one Disk.
func (r *Claims) leave(c *claimant) {
	r.mu.Lock()
	c.disks--
	last := c.disks == 0
	if last {
		delete(c.dir.claimants, c.owner)
		c.removeNames(func(string) bool { return true })
		c.removeIDs(c.ids)
	}
	r.mu.Unlock()
	if last {
		c.unlock()
	}
	r.drop(c.dir)
}

// claim claims files, unless another owner has claimed one of them in c's directory or in one of the nested ones: then it returns
// a *Claimed with the path below c's directory. Nothing can come between the look and the claim. undo takes back what was not
// claimed before. If nested is nil but there are claims in several directories, claim does nothing and returns no undo.
func (r *Claims) claim(c *claimant, files []Claim, nested []nestedDir) (undo func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if nested == nil && len(r.dirs) > 1 {
		return nil, nil
	}
	err = taken(registered{c.dir, c.owner}, files, itself)
	for _, n := range nested {
		if err == nil {
			err = taken(registered{n.dir, c.owner}, files, n.within)
		}
	}
	if err != nil {
		return nil, err
	}
	var names []string
	had := len(c.ids)
	for _, f := range files {
		for _, name := range f.names(f.Path) {
			if c.dir.names.at(name) == nil {
				names = append(names, name)
			}
		}
		if f.ID != (FileID{}) && c.dir.files[f.ID] != c {
			c.dir.files[f.ID] = c
			c.ids = append(c.ids, f.ID)
		}
	}
	c.dir.most = max(c.dir.most, len(c.dir.files))
	slices.Sort(names)
	names = slices.Compact(names)
	c.dir.names.add(names, c)
	c.names += len(names)
	ids := slices.Clone(c.ids[had:])
	return func() { r.takeBack(c, names, ids) }, nil
}

// takeBack ends some of the claims of c. The names are sorted.
func (r *Claims) takeBack(c *claimant, names []string, ids []FileID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.disks == 0 {
		return
	}
	c.removeNames(func(name string) bool {
		_, found := slices.BinarySearch(names, name)
		return found
	})
	c.removeIDs(ids)
	c.ids = slices.DeleteFunc(c.ids, func(id FileID) bool { return c.dir.files[id] != c })
}

// holds reports whether all paths are claimed already.
func (r *Claims) holds(c *claimant, files []Claim) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range files {
		for _, name := range f.names(f.Path) {
			if c.dir.names.at(name) != c {
				return false
			}
		}
	}
	return true
}

// removeNames ends the claims of c on those names for which the function which returns true.
func (c *claimant) removeNames(which func(name string) bool) {
	before := len(c.dir.names)
	c.dir.names.remove(func(n claimedName) bool { return n.by == c && which(n.name) })
	c.names -= before - len(c.dir.names)
}

func (c *claimant) removeIDs(ids []FileID) {
	for _, id := range ids {
		if c.dir.files[id] == c { // it may be another's by now: see Claim.New
			delete(c.dir.files, id)
		}
	}
	if e := c.dir; e.most >= 1024 && len(e.files) < e.most/4 { // a map keeps its memory
		left := make(map[FileID]*claimant, len(e.files))
		maps.Copy(left, e.files)
		e.files, e.most = left, len(left)
	}
}

// registered is what others than an owner have claimed in a directory, as a claimTable. The caller holds Claims.mu.
type registered struct {
	*claimDir
	owner [20]byte
}

func (t registered) other(c *claimant) (owner [20]byte, ok bool) {
	if c == nil || c.owner == t.owner {
		return owner, false
	}
	return c.owner, true
}

func (t registered) any() (owner [20]byte, ok bool) {
	for _, c := range t.claimants {
		if owner, ok := t.other(c); ok && c.names > 0 {
			return owner, true
		}
	}
	return owner, false
}

func (t registered) claimed(name string) (owner [20]byte, ok bool) {
	for n := range t.names.around(name) {
		if owner, ok := t.other(n.by); ok {
			return owner, true
		}
	}
	return owner, false
}

func (t registered) claimedFile(id FileID) ([20]byte, bool) { return t.other(t.files[id]) }

// join returns the claimant of the disk, which it makes at the first call: a Disk has one owner.
func (d *rootDisk) join(owner [20]byte) (*claimant, error) {
	d.joining.Lock()
	defer d.joining.Unlock()
	if d.claimant == nil {
		root, err := d.writable()
		if err != nil {
			return nil, err
		}
		dir := d.claims.useKnown(d.FileID)
		if dir == nil {
			f, err := root.Open(".")
			if err != nil {
				return nil, err
			}
			dir = d.claims.use(f, d.path())
		}
		d.claimant = d.claims.join(dir, owner)
	}
	return d.claimant, nil
}

// leave ends the claims of the disk.
func (d *rootDisk) leave() {
	d.joining.Lock()
	defer d.joining.Unlock()
	if d.claimant != nil {
		d.claims.leave(d.claimant)
		d.claimant = nil
	}
}

// path returns the path of the directory, without symbolic links if that is known.
func (d *rootDisk) path() string {
	if d.whole != "" {
		return d.whole
	}
	return filepath.Clean(d.root.Name())
}

func (d *rootDisk) Claim(owner [20]byte, files []Claim) (undo func(), err error) {
	c, err := d.join(owner)
	if err != nil {
		return nil, err
	}
	// An identity that was just made needs no look at other directories, nor does a path that is claimed.
	known := !slices.ContainsFunc(files, func(f Claim) bool { return f.ID == (FileID{}) || !f.New }) && d.claims.holds(c, files)
	var nested []nestedDir
	if known {
		nested = []nestedDir{}
	}
	release, err := d.claims.claim(c, files, nested)
	if err == nil && release == nil {
		if nested, err = d.nested(files); err == nil {
			release, err = d.claims.claim(c, files, nested)
		}
	}
	if err != nil {
		return nil, d.inDir(err)
	}
	unlock, err := c.lock(files)
	if err == nil && !known {
		// If another Disk claims in another directory at the same time, at least one of the two finds the other's claims here.
		err = d.takenAround(c, files)
	}
	if err != nil {
		unlock()
		release()
		return nil, d.inDir(err)
	}
	return func() { unlock(); release() }, nil
}
