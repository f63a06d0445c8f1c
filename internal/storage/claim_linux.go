package storage

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"path"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
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

// An owner is the number of a download's info hash among those that have claims in the directory.
type owner struct {
	known  bool // claims tell it
	number int64
}

// numberOf is the number that the claims of an info hash tell: the bits that it begins with, or the next number that no other info
// hash has. An author can choose what a hash begins with.
func (d *rootDisk) numberOf(hash [20]byte) int64 {
	if d.owner.known {
		return d.owner.number
	}
	who := int64(binary.BigEndian.Uint32(hash[:]) >> (32 - ownerBits))
	for {
		if by, taken := d.wholeOwner(who); !taken || by == hash {
			return who
		}
		who = (who + 1) % (1 << ownerBits)
	}
}

func (d *rootDisk) Claim(owner [20]byte, files []Claim) error {
	defer d.claimAlone()()
	who := d.numberOf(owner)
	for _, f := range files {
		taken := func(kind byte, name string) error {
			if by, ok := d.claimedBy(claimAt(kind, name)); ok && by != who {
				whole, _ := d.wholeOwner(by)
				return &Claimed{Path: filepath.Join(d.root.Name(), filepath.FromSlash(f.Path)), Owner: whole}
			}
			return nil
		}
		if err := taken(claimBelow, f.Path); err != nil {
			return err
		}
		for p := f.Path; p != "."; p = path.Dir(p) {
			if err := taken(claimPath, p); err != nil {
				return err
			}
		}
		if f.ID != (FileID{}) {
			if err := taken(claimFile, identity(f.ID)); err != nil {
				return err
			}
		}
	}
	below := make(map[string]struct{})
	for _, f := range files {
		d.hold(claimAt(claimPath, f.Path), who)
		for p := path.Dir(f.Path); p != "."; p = path.Dir(p) {
			if _, ok := below[p]; ok {
				break
			}
			below[p] = struct{}{}
			d.hold(claimAt(claimBelow, p), who)
		}
		if f.ID != (FileID{}) {
			d.hold(claimAt(claimFile, identity(f.ID)), who)
		}
	}
	for k, part := range ownerParts(owner) {
		d.hold(ownerTable|(who<<2|int64(k))<<partBits, part)
	}
	d.owner.known, d.owner.number = true, who
	return nil
}

func identity(id FileID) string { return fmt.Sprintf("%d on %d", id.Inode, id.Dev) }

// claimAlone keeps others from claiming in the same directory until done is called, for a second at most.
func (d *rootDisk) claimAlone() (done func()) {
	for range 100 {
		err := ignoringEINTR(func() error { return unix.Flock(int(d.self.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
		if err == nil {
			return func() { unix.Flock(int(d.self.Fd()), unix.LOCK_UN) }
		}
		if err != unix.EWOULDBLOCK {
			break // a file system without locks
		}
		time.Sleep(10 * time.Millisecond)
	}
	return func() {}
}

// hold locks the range at off whose length tells n. A file system without such locks goes without claims.
func (d *rootDisk) hold(off, n int64) {
	l := unix.Flock_t{Type: unix.F_RDLCK, Start: off, Len: n + 1}
	_ = ignoringEINTR(func() error { return unix.FcntlFlock(d.self.Fd(), unix.F_OFD_SETLK, &l) })
}

// claimedBy returns what the length of the range at off tells, if another Disk holds one.
func (d *rootDisk) claimedBy(off int64) (n int64, taken bool) {
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: off, Len: 1 << claimShift}
	err := ignoringEINTR(func() error { return unix.FcntlFlock(d.self.Fd(), unix.F_OFD_GETLK, &l) })
	return l.Len - 1, err == nil && l.Type != unix.F_UNLCK
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

// wholeOwner is the info hash of another Disk that has a number, as far as that says it.
func (d *rootDisk) wholeOwner(who int64) (hash [20]byte, taken bool) {
	for k := range int64(4) {
		part, ok := d.claimedBy(ownerTable | (who<<2|k)<<partBits)
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
