package storage

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// What other processes and clients have claimed is known by read locks (open file description locks) on bytes of the directory
// itself. They need neither a file nor write permission, and end with the process at the latest. The offset of a byte encodes what
// is claimed and by whom. All claims of one client in a directory are held on one open file, so that the kernel only reports those of
// others.
const (
	claimShift = 21      // each claim has 2 MiB of offsets to itself
	ownerBits  = 20      // bits of an owner's number, which is the byte of a claim that is locked
	ownerTable = 1 << 62 // ranges from this offset on encode whole info hashes, in two parts
	partBits   = 41      // each part has so many bits of offsets to itself: five bytes are where its range begins, and five its length
	ownerParts = 2
)

// A lockTable is the locks on one directory.
type lockTable struct {
	mu      sync.Mutex
	waited  bool // the last wait for the lock on the directory was in vain
	numbers map[int64]*claimant
}

// ownLocks are those of one claimant. Guarded by the mutex of its directory's lockTable.
type ownLocks struct {
	number int64          // stands for the info hash, as long as there are locks
	held   map[int64]bool // offsets of what is claimed
}

// claimAt returns the offset at which the bytes of a claim begin.
func claimAt(kind byte, name string) int64 {
	h := fnv.New64a()
	h.Write([]byte{kind})
	h.Write([]byte(name))
	return int64(h.Sum64()>>(64-40)) << claimShift
}

const (
	claimPath  = 'p' // a path, and all below it
	claimBelow = 'b' // something below a path
	claimFile  = 'f' // the file with an identity
)

func identity(id FileID) string { return fmt.Sprintf("%d on %d", id.Inode, id.Dev) }

// lock keeps other processes from files, or from directories that hold them, since the system walks through all locks of a
// directory for each. It returns a *Claimed if another one has claimed a file. undo is never nil.
func (c *claimant) lock(files []Claim) (undo func(), err error) {
	e, added := c.dir, []int64(nil)
	undo = func() {
		e.locks.mu.Lock()
		defer e.locks.mu.Unlock()
		c.release(added)
	}
	e.locks.mu.Lock()
	defer e.locks.mu.Unlock()
	files = slices.DeleteFunc(slices.Clone(bounded(files, maxLocks)), c.covers)
	if len(files) == 0 {
		return undo, nil
	}
	done := e.alone()
	defer done()
	if err := e.locked(c, files, itself); err != nil {
		return undo, err
	}
	c.begin()
	hold := func(off int64) (isNew bool) {
		if c.locks.held[off] {
			return false
		}
		c.locks.held[off] = true
		added = append(added, off)
		e.set(unix.F_RDLCK, off+c.locks.number, 1)
		return true
	}
	for _, f := range files {
		for _, name := range f.names(f.Path) {
			hold(claimAt(claimPath, name))
			for p := above(name); p != "." && hold(claimAt(claimBelow, p)); p = above(p) {
			}
		}
		if f.ID != (FileID{}) {
			hold(claimAt(claimFile, identity(f.ID)))
		}
	}
	if e.locks.waited { // another process may have claimed at the same time
		return undo, e.locked(c, files, itself)
	}
	return undo, nil
}

// covers reports whether f needs no lock any more: it lies in a directory that is locked, or is locked itself.
func (c *claimant) covers(f Claim) bool {
	for _, name := range f.names(f.Path) {
		p := name
		if f.ID != (FileID{}) && !c.locks.held[claimAt(claimFile, identity(f.ID))] {
			p = above(name)
		}
		for ; p != "." && !c.locks.held[claimAt(claimPath, p)]; p = above(p) {
		}
		if p == "." {
			return false
		}
	}
	return true
}

// begin gives c the number that its locks encode: the first bits of its info hash or, if another info hash has that number, the
// next free one. The author of a torrent can choose how its info hash begins.
func (c *claimant) begin() {
	e := c.dir
	if len(c.locks.held) > 0 {
		return
	}
	who := int64(binary.BigEndian.Uint32(c.owner[:]) >> (32 - ownerBits))
	for ; ; who = (who + 1) % (1 << ownerBits) {
		if e.locks.numbers[who] != nil {
			continue
		}
		if by, taken := e.wholeOwner(who); !taken || by == c.owner {
			break
		}
	}
	if e.locks.numbers == nil {
		e.locks.numbers = make(map[int64]*claimant)
	}
	e.locks.numbers[who] = c
	c.locks = ownLocks{who, make(map[int64]bool)}
	for k := range ownerParts {
		e.set(unix.F_RDLCK, partAt(who, k)+number40(c.owner[10*k:]), number40(c.owner[10*k+5:])+1)
	}
}

// release ends some locks of c. The caller holds c.dir.locks.mu.
func (c *claimant) release(offsets []int64) {
	e := c.dir
	for _, off := range offsets {
		if c.locks.held[off] {
			delete(c.locks.held, off)
			e.set(unix.F_UNLCK, off+c.locks.number, 1)
		}
	}
	if len(c.locks.held) == 0 && e.locks.numbers[c.locks.number] == c {
		delete(e.locks.numbers, c.locks.number)
		e.set(unix.F_UNLCK, partAt(c.locks.number, 0), ownerParts<<partBits)
	}
}

// unlock ends all locks of c.
func (c *claimant) unlock() {
	c.dir.locks.mu.Lock()
	defer c.dir.locks.mu.Unlock()
	var all []int64
	for off := range c.locks.held {
		all = append(all, off)
	}
	c.release(all)
}

// locked returns a *Claimed if another process or client has claimed one of the files for another owner than c.
func (e *claimDir) locked(c *claimant, files []Claim, within func(string) (string, bool)) error {
	return taken(foreign{e, c.owner, make(map[string]bool), make(map[string]bool)}, files, within)
}

// alone keeps other processes from claiming in the same directory until done is called. It waits for them at most one second.
// After a wait in vain it does not wait again until it has once got the lock, because another program may lock the directory for
// hours. The caller holds e.locks.mu.
func (e *claimDir) alone() (done func()) {
	for range 100 {
		err := ignoringEINTR(func() error { return unix.Flock(int(e.self.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
		if err == nil {
			e.locks.waited = false
			return func() { unix.Flock(int(e.self.Fd()), unix.LOCK_UN) }
		}
		if err != unix.EWOULDBLOCK || e.locks.waited {
			return func() {} // the file system has no locks, or another program holds this one
		}
		time.Sleep(10 * time.Millisecond)
	}
	e.locks.waited = true
	return func() {}
}

// set locks or unlocks n bytes at off. A file system without such locks has no claims of other processes.
func (e *claimDir) set(kind int16, off, n int64) {
	l := unix.Flock_t{Type: kind, Start: off, Len: n}
	_ = ignoringEINTR(func() error { return unix.FcntlFlock(e.self.Fd(), unix.F_OFD_SETLK, &l) })
}

// heldWithin returns a range that another process or client holds within the n bytes at off. If n is 0, it searches to the end.
func (e *claimDir) heldWithin(off, n int64) (unix.Flock_t, bool) {
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: off, Len: n}
	err := ignoringEINTR(func() error { return unix.FcntlFlock(e.self.Fd(), unix.F_OFD_GETLK, &l) })
	return l, err == nil && l.Type != unix.F_UNLCK
}

// partAt returns the offset of a part of the info hash for which a number stands. More parts would be slower: the system walks
// through all locks of a directory for each of them.
func partAt(who int64, k int) int64 { return ownerTable | (who*ownerParts+int64(k))<<partBits }

// number40 is the number in the first five bytes of b.
func number40(b []byte) (n int64) {
	for _, b := range b[:5] {
		n = n<<8 | int64(b)
	}
	return n
}

// wholeOwner returns the info hash for which the number who stands in the locks of others. Parts that are missing are zero; taken
// is false if all are.
func (e *claimDir) wholeOwner(who int64) (hash [20]byte, taken bool) {
	for k := range ownerParts {
		if l, ok := e.heldWithin(partAt(who, k), 1<<partBits); ok {
			taken = true
			for i := range 5 {
				hash[10*k+i] = byte((l.Start - partAt(who, k)) >> (32 - 8*i))
				hash[10*k+5+i] = byte((l.Len - 1) >> (32 - 8*i))
			}
		}
	}
	return hash, taken
}

// foreign is what other processes and clients have claimed in a directory for others than an owner, as a claimTable.
type foreign struct {
	*claimDir
	owner [20]byte
	near  map[string]bool // directly in the directory: whether there may be claims at or below it
	free  map[string]bool // paths that no other owner has claimed, nor what leads to them
}

func (t foreign) any() ([20]byte, bool) {
	if _, some := t.heldWithin(0, 0); !some {
		return [20]byte{}, false
	}
	return t.others(partAt(0, 0), ownerParts<<partBits, 0, 1<<ownerBits)
}

func (t foreign) at(kind byte, name string) ([20]byte, bool) {
	return t.others(claimAt(kind, name), 1, 0, 1<<ownerBits)
}

func (t foreign) claimed(name string) (by [20]byte, ok bool) {
	first := firstElements(name, 1)
	if _, asked := t.near[first]; !asked {
		_, t.near[first] = t.at(claimPath, first)
		if !t.near[first] {
			_, t.near[first] = t.at(claimBelow, first)
		}
	}
	if !t.near[first] {
		return by, false
	}
	if by, ok := t.at(claimBelow, name); ok {
		return by, true
	}
	for p := name; p != "." && !t.free[p]; p = above(p) {
		if by, ok := t.at(claimPath, p); ok {
			return by, true
		}
		t.free[p] = true
	}
	return by, false
}

func (t foreign) claimedFile(id FileID) ([20]byte, bool) { return t.at(claimFile, identity(id)) }

// others returns another owner whose number is at least from and less than to. What has the number k is held at base + k*step.
func (t foreign) others(base, step, from, to int64) (owner [20]byte, ok bool) {
	if from >= to {
		return owner, false
	}
	n := (to - from) * step
	if base+from*step > (1<<63-1)-n {
		n = 0 // to the end
	}
	l, ok := t.heldWithin(base+from*step, n)
	if !ok {
		return owner, false
	}
	who := max(from, (l.Start-base)/step)
	if owner, _ := t.wholeOwner(who); owner != t.owner {
		return owner, true
	}
	if owner, ok := t.others(base, step, from, who); ok {
		return owner, true
	}
	return t.others(base, step, who+1, to)
}

// openBelow opens a directory within this one. An os.Root goes there step by step, and so to all that lead to a deep one in the
// square of their number.
func (d *rootDisk) openBelow(p string) (*os.File, error) {
	if !d.hold() {
		return nil, fs.ErrClosed
	}
	defer d.give()
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
