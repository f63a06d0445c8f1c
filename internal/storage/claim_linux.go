package storage

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"os"
	"path"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-go/torrent/internal/safename"
)

// Claims are read locks on ranges of the directory itself (open file description locks), of which the kernel lets
// us ask where others have some. They need no file, no right to write, and end with the process at the latest. Where
// a range begins says what is claimed; how long it is says by whom.
const (
	claimShift = 21      // each claim has 2 MiB of offsets to itself
	ownerBits  = 20      // of the number of an owner, which the length of a range tells
	ownerTable = 1 << 62 // from here on ranges spell out whole info hashes, 40 bits each
	partBits   = 40
)

// claimAt is where the range of a claim begins.
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

// anyCase is what the names of claims begin with that regard no case, as no path does.
const anyCase = "\x00"

// names are what is claimed by c on a file that has the given path.
func (c Claim) names(path string) []string {
	if c.AnyCase {
		return []string{path, anyCase + safename.FoldCase(path)}
	}
	return []string{path}
}

// An owner is the number of a download's info hash among those that have claims in the directory.
type owner struct {
	known  bool // claims tell it
	number int64
	waited bool // in vain, for others that claim or have locked the directory
}

// numberOf is the number that the claims of an info hash tell: the bits that it begins with, or the next number that no other info
// hash has. An author can choose what a hash begins with.
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
			for p := path.Dir(name); p != "."; p = path.Dir(p) {
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
	if d.owner.waited { // we were not alone
		if err := d.takenHere(files, owner); err != nil {
			return err
		}
	}
	return d.takenAround(files, owner) // one that claims in another directory meanwhile sees ours, or we see its
}

// takenHere is a *Claimed if another owner has claimed one of the files in this directory.
func (d *rootDisk) takenHere(files []Claim, owner [20]byte) error {
	others := make(neighbours)
	for _, f := range files {
		if err := d.taken(d.self, others, f.Path, f, owner); err != nil {
			return err
		}
	}
	return nil
}

// neighbours says of the directories that lie directly in another whether any other Disk has claims there. Most torrents have one of
// their own, and thousands may lie in one place: they are not asked about file by file.
type neighbours map[string]bool

// near reports whether any other Disk has claims in the directory directly in dir that a path leads through.
func (n neighbours) near(dir *os.File, name string) bool {
	first := firstElements(name, 1)
	near, asked := n[first]
	if !asked && first != name {
		for _, kind := range []byte{claimPath, claimBelow} {
			_, taken := claimedBy(dir, claimAt(kind, first))
			near = near || taken
		}
		n[first] = near
	}
	return near || first == name
}

// taken is a *Claimed if another owner has claimed a file in a directory, under which it has the given name.
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
		for p := name; p != "."; p = path.Dir(p) {
			if err := ask(claimPath, p); err != nil {
				return err
			}
		}
	}
	if f.ID != (FileID{}) {
		return ask(claimFile, identity(f.ID))
	}
	return nil
}

func identity(id FileID) string { return fmt.Sprintf("%d on %d", id.Inode, id.Dev) }

// claimAlone keeps others from claiming in the same directory until done is called. It waits a second for them at most, and after
// it has waited in vain no longer, until it was alone again: another program may have a lock on the directory for hours.
func (d *rootDisk) claimAlone() (done func()) {
	for range 100 {
		err := ignoringEINTR(func() error { return unix.Flock(int(d.self.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
		if err == nil {
			d.owner.waited = false
			return func() { unix.Flock(int(d.self.Fd()), unix.LOCK_UN) }
		}
		if err != unix.EWOULDBLOCK || d.owner.waited {
			return func() {} // a file system without locks, or one that another program has
		}
		time.Sleep(10 * time.Millisecond)
	}
	d.owner.waited = true
	return func() {}
}

// hold locks the range at off whose length tells n. A file system without such locks goes without claims.
func (d *rootDisk) hold(off, n int64) {
	l := unix.Flock_t{Type: unix.F_RDLCK, Start: off, Len: n + 1}
	_ = ignoringEINTR(func() error { return unix.FcntlFlock(d.self.Fd(), unix.F_OFD_SETLK, &l) })
}

// claimedBy returns what the length of the range at off of a directory tells, if another Disk holds one.
func claimedBy(dir *os.File, off int64) (n int64, taken bool) {
	l, taken := heldWithin(dir, off, 1<<claimShift)
	return l.Len - 1, taken
}

// heldWithin is a range that another Disk holds within n bytes at off of a directory; n is 0 for all of them.
func heldWithin(dir *os.File, off, n int64) (unix.Flock_t, bool) {
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: off, Len: n}
	err := ignoringEINTR(func() error { return unix.FcntlFlock(dir.Fd(), unix.F_OFD_GETLK, &l) })
	return l, err == nil && l.Type != unix.F_UNLCK
}

// ownerParts cuts an info hash into four numbers of 40 bits. More would be slower: the system walks through all ranges of a
// directory for each, and thousands of downloads may share one.
func ownerParts(hash [20]byte) (parts [4]int64) {
	for k := range parts {
		for _, b := range hash[5*k : 5*k+5] {
			parts[k] = parts[k]<<8 | int64(b)
		}
	}
	return parts
}

// wholeOwner is the info hash of another Disk that has a number in a directory, as far as that says it.
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
