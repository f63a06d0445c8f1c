// Package disktest has a disk in memory that a loss of power can be tried on, for tests of storage and of what
// stands on it.
package disktest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/shoal-go/torrent/internal/storage"
)

// Disk is a disk in memory. After a loss of power, what was not synced is there or not, page by page, size and
// time each for itself, as on the worst of file systems. It may be used from any goroutine.
type Disk struct {
	// Fail is asked before each call, also of what the disk has opened, and an error of it becomes that of the call. A call
	// that fails does nothing but what cannot be helped: half of a read or write is done, and what is closed is
	// closed. It is set before the first call; nil is none.
	Fail func(call, name string) error

	*state
	mount int   // that in which the directory was opened
	first *Disk // whose Fail counts
}

// state is what all Disks share that are the same directory in different mounts.
type state struct {
	mu      sync.Mutex
	clock   int64
	names   map[string]*inode // as programs see it; a nil inode is a directory
	durable map[string]*inode // as the disk has it for certain
	held    map[string]int    // open files, maps and locks, and the disk itself, by what they are
	away    bool              // not mounted
	mounts  int               // how often it was mounted again

	syncError  error // of every sync, which then loses what it should have kept
	writeError error // of every write
}

// New returns a disk with nothing on it.
func New() *Disk {
	d := &Disk{state: &state{names: make(map[string]*inode), durable: make(map[string]*inode), held: make(map[string]int)}}
	d.first = d
	return d
}

// OpenFiles is storage.OpenFiles of a directory on the disk.
func (d *Disk) OpenFiles(c storage.Content, dir string, log *slog.Logger) (storage.Store, error) {
	if err := d.fail("open the disk", dir); err != nil {
		return nil, err
	}
	d.hold("disk", 1)
	s, err := storage.OpenDisk(c, d, dir, log)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return s, nil
}

// Held is what is open, mapped or locked.
func (d *Disk) Held() (held []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for what, n := range d.held {
		if n != 0 {
			held = append(held, fmt.Sprintf("%s: %d", what, n))
		}
	}
	slices.Sort(held)
	return held
}

// hold counts n more of what is held.
func (d *state) hold(what string, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held[what] += n
}

// Unmount has each call fail from now on, as after the end of a FUSE server.
func (d *Disk) Unmount() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.away = true
}

// Mount mounts the disk again after Unmount and, if rng is not nil, a loss of power. What is open of it stays useless.
func (d *Disk) Mount(rng *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.away = false
	d.mounts++
	if rng != nil {
		d.leave(d.state, rng)
	}
}

func (d *Disk) Reopen() (storage.Disk, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away {
		return nil, syscall.ENOTCONN
	}
	if d.mount == d.mounts {
		return nil, nil
	}
	d.held["disk"]++
	return &Disk{state: d.state, mount: d.mounts, first: d.first}, nil
}

// fail is the error with which a call fails, or nil.
func (d *Disk) fail(call, name string) error {
	d.mu.Lock()
	dead := d.away || d.mount != d.mounts
	d.mu.Unlock()
	if dead {
		return &fs.PathError{Op: call, Path: name, Err: syscall.ENOTCONN}
	}
	if d.first.Fail == nil {
		return nil
	}
	if err := d.first.Fail(call, name); err != nil {
		return &fs.PathError{Op: call, Path: name, Err: err}
	}
	return nil
}

// FailSyncs has every sync fail from now on, and lose what it should have kept, until err is nil.
func (d *Disk) FailSyncs(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.syncError = err
}

// FailWrites has every write fail from now on, until err is nil.
func (d *Disk) FailWrites(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writeError = err
}

// Names are those of all files and directories.
func (d *Disk) Names() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.names))
}

// Crash returns what is there after a loss of power.
func (d *Disk) Crash(rng *rand.Rand) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	after := New()
	d.leave(after.state, rng)
	return after
}

// leave puts in a state, which may be d itself, what is left of d after a loss of power. The caller holds the mutexes of both.
func (d *state) leave(after *state, rng *rand.Rand) {
	names := make(map[string]*inode)
	after.clock = d.clock + 1000
	kept := make(map[*inode]*inode)
	all := maps.Clone(d.names)
	maps.Copy(all, d.durable)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		from := d.durable
		if rng.IntN(2) == 0 {
			from = d.names
		}
		old, ok := from[name]
		if !ok {
			continue
		}
		if _, reached := names[filepath.Dir(name)]; !reached && filepath.Dir(name) != "." {
			continue // lost with its directory, which comes before it
		}
		if old == nil {
			names[name] = nil
			continue
		}
		if kept[old] == nil {
			kept[old] = &inode{disk: after, number: old.number, seen: old.remembered(rng)}
			kept[old].durable = version{bytes.Clone(kept[old].seen.data), kept[old].seen.mtime}
		}
		kept[old].links++
		names[name] = kept[old]
	}
	after.names, after.durable = names, maps.Clone(names)
}

func (d *Disk) Open(name string, flag int) (storage.DiskFile, error) {
	if err := d.fail("open", name); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.names[name]
	switch {
	case ok && flag&os.O_EXCL != 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrExist}
	case ok && f == nil:
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EISDIR}
	case !ok && flag&os.O_CREATE == 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	case !ok:
		if _, ok := d.names[filepath.Dir(name)]; !ok && filepath.Dir(name) != "." {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		d.clock++
		f = &inode{disk: d.state, number: uint64(d.clock), links: 1, seen: version{mtime: d.clock}}
		f.durable.mtime = d.clock
		d.names[name] = f
	}
	if flag&os.O_TRUNC != 0 {
		d.clock++
		f.seen = version{mtime: d.clock}
	}
	d.held[name]++
	return &file{inode: f, disk: d, name: name}, nil
}

func (d *Disk) MkdirAll(name string) error {
	if err := d.fail("mkdir", name); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for ; name != "."; name = filepath.Dir(name) {
		if d.names[name] != nil {
			return &fs.PathError{Op: "mkdir", Path: name, Err: syscall.ENOTDIR}
		}
		d.names[name] = nil
	}
	return nil
}

func (d *Disk) Listed(name string) (bool, error) {
	if err := d.fail("list", filepath.Dir(name)); err != nil {
		return false, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.names[name]
	return ok, nil
}

func (d *Disk) Stat(name string) (storage.FileInfo, error) {
	if err := d.fail("stat", name); err != nil {
		return storage.FileInfo{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if name == "." {
		return storage.FileInfo{ID: storage.FileID{Dev: 1}}, nil
	}
	f, ok := d.names[name]
	if !ok {
		return storage.FileInfo{}, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	if f == nil {
		return storage.FileInfo{ID: storage.FileID{Dev: 1}}, nil
	}
	return f.info(), nil
}

func (d *Disk) Rename(from, to string) error {
	if err := d.fail("rename", from); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.names[from]
	if !ok {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	if old := d.names[to]; old != nil {
		old.links--
	}
	delete(d.names, from)
	d.names[to] = f
	return nil
}

func (d *Disk) Remove(name string) error {
	if err := d.fail("remove", name); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.names[name]
	if !ok {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	if f != nil {
		f.links--
	} else {
		for other := range d.names {
			if filepath.Dir(other) == name {
				return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOTEMPTY}
			}
		}
	}
	delete(d.names, name)
	return nil
}

func (d *Disk) RemoveDir(name string) error { return d.Remove(name) }

func (d *Disk) Link(name string, to storage.Disk, as string) error {
	if err := d.fail("link", name); err != nil {
		return err
	}
	if sub, ok := to.(*directory); ok {
		to, as = sub.disk, sub.path(as)
	}
	if other, ok := to.(*Disk); !ok || other.state != d.state {
		return &os.LinkError{Op: "link", Old: name, New: as, Err: syscall.EXDEV}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.names[name]
	if f == nil {
		return &os.LinkError{Op: "link", Old: name, New: as, Err: fs.ErrNotExist}
	}
	if _, taken := d.names[as]; taken {
		return &os.LinkError{Op: "link", Old: name, New: as, Err: fs.ErrExist}
	}
	f.links++
	d.names[as] = f
	return nil
}

// Symlink fails: the disk has no symbolic links.
func (d *Disk) Symlink(target, name string) error {
	return &os.LinkError{Op: "symlink", Old: target, New: name, Err: errors.ErrUnsupported}
}

func (d *Disk) Readlink(name string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.names[name]; ok {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: syscall.EINVAL}
	}
	return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrNotExist}
}

func (d *Disk) SetMtime(name string, mtime int64) error {
	if err := d.fail("chtimes", name); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names[name].seen.mtime = mtime
	return nil
}

func (d *Disk) SyncDir(dir string) error {
	if err := d.fail("sync directory", dir); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	inside := func(name string, _ *inode) bool { return filepath.Dir(name) == dir }
	maps.DeleteFunc(d.durable, inside)
	for name, f := range d.names {
		if inside(name, f) {
			d.durable[name] = f
		}
	}
	return nil
}

func (d *Disk) SyncAll() (bool, error) { return false, d.fail("sync", ".") }

func (d *Disk) Lock(name string, exclusive bool) (func(bool) error, error) {
	if err := d.fail("lock", name); err != nil {
		return nil, err
	}
	d.hold("lock of "+name, 1)
	return func(bool) error {
		d.hold("lock of "+name, -1)
		return d.fail("unlock", name)
	}, nil
}

func (d *Disk) Claim([20]byte, []storage.Claim) (func(), error) {
	return func() {}, d.fail("claim", ".")
}

func (d *Disk) Close() error {
	d.hold("disk", -1)
	return d.fail("close", ".")
}
