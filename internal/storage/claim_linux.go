package storage

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-go/torrent/internal/safename"
)

// Claims are read locks (open file description locks) on byte ranges of the directory itself. The kernel reports where other
// processes and descriptors hold such locks. They need neither a file nor write permission, and end with the process at the
// latest. The offset of a range encodes what is claimed, and its length encodes the owner.
const (
	claimShift = 21      // each claim has 2 MiB of offsets to itself
	ownerBits  = 20      // bits of an owner's number, which the length of a range encodes
	ownerTable = 1 << 62 // ranges from this offset on encode whole info hashes, partBits bits each
	partBits   = 40
)

// claimAt returns the offset at which the range of a claim begins.
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

// anyCase is the prefix of names of claims that ignore case. No path begins with it.
const anyCase = "\x00"

// names returns the names that c claims for a file at the given path.
func (c Claim) names(path string) []string {
	if c.AnyCase {
		return []string{path, anyCase + safename.FoldCase(path)}
	}
	return []string{path}
}

// An owner is the number that stands for a download's info hash in the claims on the directory.
type owner struct {
	known  bool // number is set, and claims with it may exist
	number int64
	waited bool // the last wait for the lock on the directory was in vain
}

// numberOf returns the number that the claims of an info hash encode: its first ownerBits bits or, if another info hash has that
// number, the next free one. The author of a torrent can choose how its info hash begins.
func (d *rootDisk) numberOf(hash [20]byte) int64 {
	if d.owner.known {
		return d.owner.number
	}
	who := int64(binary.BigEndian.Uint32(hash[:]) >> (32 - ownerBits))
	for {
		if by, taken := wholeOwner(d.self, who); !taken || by == hash {
			return who
		}
		who = (who + 1) % (1 << ownerBits)
	}
}

func (d *rootDisk) Claim(owner [20]byte, files []Claim) error {
	defer d.claimAlone()()
	who := d.numberOf(owner)
	if err := d.takenHere(files, owner); err != nil {
		return err
	}
	if err := d.takenAround(files, owner); err != nil {
		return err
	}
	below := make(map[string]struct{})
	for _, f := range files {
		for _, name := range f.names(f.Path) {
			d.hold(claimAt(claimPath, name), who)
			for p := above(name); p != "."; p = above(p) {
				if _, ok := below[p]; ok {
					break
				}
				below[p] = struct{}{}
				d.hold(claimAt(claimBelow, p), who)
			}
		}
		if f.ID != (FileID{}) {
			d.hold(claimAt(claimFile, identity(f.ID)), who)
		}
	}
	for k, part := range ownerParts(owner) {
		d.hold(ownerTable|(who<<2|int64(k))<<partBits, part)
	}
	d.owner.known, d.owner.number = true, who
	if d.owner.waited { // another Disk may have claimed at the same time
		if err := d.takenHere(files, owner); err != nil {
			return err
		}
	}
	// If another Disk claims in another directory at the same time, at least one of the two finds the other's claims here.
	return d.takenAround(files, owner)
}

// takenHere returns a *Claimed if another owner has claimed one of the files in this directory.
func (d *rootDisk) takenHere(files []Claim, owner [20]byte) error {
	others := newNeighbours()
	for _, f := range files {
		if err := d.taken(d.self, others, f.Path, f, owner); err != nil {
			return err
		}
	}
	return nil
}

// neighbours records, for names directly in a directory, whether another Disk has claims at or below them. Most torrents have a
// directory of their own, and thousands of these may lie in one place: a directory without claims is not searched for each file.
type neighbours struct {
	any   map[string]bool
	asked map[string]bool // paths that no other owner has claimed, nor what leads to them
}

func newNeighbours() neighbours {
	return neighbours{make(map[string]bool), make(map[string]bool)}
}

// near reports whether another Disk may have claims on the path name in dir: it has some at or below the path's first element, or
// the path has no other.
func (n neighbours) near(dir *os.File, name string) bool {
	first := firstElements(name, 1)
	if first == name {
		return true
	}
	near, asked := n.any[first]
	if !asked {
		for _, kind := range []byte{claimPath, claimBelow} {
			_, taken := claimedBy(dir, claimAt(kind, first))
			near = near || taken
		}
		n.any[first] = near
	}
	return near
}

// above is the directory that holds what lies at p.
func above(p string) string {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i]
	}
	return "."
}

// taken returns a *Claimed if another owner has claimed, in dir, the file f, whose path below dir is name.
func (d *rootDisk) taken(dir *os.File, others neighbours, name string, f Claim, owner [20]byte) error {
	ask := func(kind byte, name string) error {
		if by, ok := claimedBy(dir, claimAt(kind, name)); ok {
			if whole, _ := wholeOwner(dir, by); whole != owner {
				return &Claimed{Path: filepath.Join(d.root.Name(), filepath.FromSlash(f.Path)), Owner: whole}
			}
		}
		return nil
	}
	for _, name := range f.names(name) {
		if !others.near(dir, name) {
			continue
		}
		if err := ask(claimBelow, name); err != nil {
			return err
		}
		for p := name; p != "." && !others.asked[p]; p = above(p) {
			if err := ask(claimPath, p); err != nil {
				return err
			}
			others.asked[p] = true
		}
	}
	if f.ID != (FileID{}) {
		return ask(claimFile, identity(f.ID))
	}
	return nil
}

func identity(id FileID) string { return fmt.Sprintf("%d on %d", id.Inode, id.Dev) }

// claimAlone keeps other Disks from claiming in the same directory until done is called. It waits for them at most one second.
// After a wait in vain it does not wait again until it has once got the lock, because another program may lock the directory for
// hours.
func (d *rootDisk) claimAlone() (done func()) {
	for range 100 {
		err := ignoringEINTR(func() error { return unix.Flock(int(d.self.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
		if err == nil {
			d.owner.waited = false
			return func() { unix.Flock(int(d.self.Fd()), unix.LOCK_UN) }
		}
		if err != unix.EWOULDBLOCK || d.owner.waited {
			return func() {} // the file system has no locks, or another program holds this one
		}
		time.Sleep(10 * time.Millisecond)
	}
	d.owner.waited = true
	return func() {}
}

// hold locks the range at off whose length encodes n. A file system without such locks has no claims.
func (d *rootDisk) hold(off, n int64) {
	l := unix.Flock_t{Type: unix.F_RDLCK, Start: off, Len: n + 1}
	_ = ignoringEINTR(func() error { return unix.FcntlFlock(d.self.Fd(), unix.F_OFD_SETLK, &l) })
}

// claimedBy returns the number that the length of the range at off of a directory encodes, if another Disk holds one there.
func claimedBy(dir *os.File, off int64) (n int64, taken bool) {
	l, taken := heldWithin(dir, off, 1<<claimShift)
	return l.Len - 1, taken
}

// heldWithin returns a range that another Disk holds within the n bytes at off of a directory. If n is 0, it searches to the end.
func heldWithin(dir *os.File, off, n int64) (unix.Flock_t, bool) {
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: off, Len: n}
	err := ignoringEINTR(func() error { return unix.FcntlFlock(dir.Fd(), unix.F_OFD_GETLK, &l) })
	return l, err == nil && l.Type != unix.F_UNLCK
}

// ownerParts splits an info hash into four numbers of 40 bits. More parts would be slower: the system walks through all ranges
// of a directory for each of them, and thousands of downloads may share a directory.
func ownerParts(hash [20]byte) (parts [4]int64) {
	for k := range parts {
		for _, b := range hash[5*k : 5*k+5] {
			parts[k] = parts[k]<<8 | int64(b)
		}
	}
	return parts
}

// wholeOwner returns the info hash of the other Disk whose claims on a directory have the number who. Parts that the directory
// does not hold are zero; taken is false if it holds none.
func wholeOwner(dir *os.File, who int64) (hash [20]byte, taken bool) {
	for k := range int64(4) {
		part, ok := claimedBy(dir, ownerTable|(who<<2|k)<<partBits)
		if !ok {
			part = 0
		}
		taken = taken || ok
		for i := range int64(5) {
			hash[5*k+i] = byte(part >> (32 - 8*i))
		}
	}
	return hash, taken
}
