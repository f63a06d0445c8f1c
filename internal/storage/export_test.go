package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"

	"github.com/shoal-go/torrent/internal/bits"
)

// Internals for the tests of this package.

const (
	MaxHandles  = maxHandles
	MaxIdle     = maxIdle
	ResumeMagic = resumeMagic
)

// OpenHandles returns how many files s has open.
func OpenHandles(s Store) int {
	p := s.(*fileStore).handles
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.files)
}

// InEdges reports whether the edges hold bytes of file i.
func InEdges(s Store, i int) bool {
	f := s.(*fileStore)
	return !f.files[i].here && f.hasSlot(i)
}

// Saved returns what changes whenever a sidecar is written.
func Saved(s Store) any { return s.(*fileStore).saved.Load() }

// DropHandle forgets the open handle of file i, so that it is opened by its name again.
func DropHandle(s Store, i int) { s.(*fileStore).handles.drop(i) }

// ReadsWait reports whether reads of s wait.
func ReadsWait(s Store) bool {
	mu := &s.(*fileStore).mu
	if !mu.TryRLock() {
		return true
	}
	mu.RUnlock()
	return false
}

// WouldBeClaimed reports whether a sidecar that is saved now claims pieces of file i, which exists.
func WouldBeClaimed(s Store, i int) bool { return s.(*fileStore).resumeStampOf(i).size > 0 }

// MapsAreMany is the function that SetMapsAreMany replaces for one store, from its next map on.
var MapsAreMany = mapsAreMany

func SetMapsAreMany(s Store, are func() bool) {
	s.(*fileStore).mapsAreMany = are
}

// OpenDisk is OpenDisk for a Store that shares its Claims with others.
func (r *Claims) OpenDisk(c Content, disk Disk, dir string, log *slog.Logger) (Store, error) {
	return openDisk(r, c, disk, dir, log)
}

// OpenRoot opens a directory of the real file system.
func (r *Claims) OpenRoot(dir string) (Disk, error) { return r.openRoot(dir) }

// OpenRoot is Claims.OpenRoot for a Disk that shares its Claims with no other.
func OpenRoot(dir string) (Disk, error) { return new(Claims).openRoot(dir) }

// OpenFiles is Claims.OpenFiles for a Store that shares its Claims with no other.
func OpenFiles(c Content, dir string, log *slog.Logger) (Store, error) {
	return new(Claims).OpenFiles(c, dir, log)
}

// Directories returns in how many directories there are claims.
func (r *Claims) Directories() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.dirs)
}

// MoveTo is Move to a Disk.
func MoveTo(ctx context.Context, s Store, to Disk, dir string, claims func() (bits.Set, map[int]bits.Set)) error {
	return s.(*fileStore).moveTo(ctx, to, dir, claims, func(int64, int64) {})
}

// LinksOf returns the symbolic links that may be made, by path, with their targets relative to the directory of the link.
func LinksOf(c Content) map[string]string {
	s := &fileStore{content: c, files: make([]fileState, c.NumFiles()+1)}
	for i := range c.NumFiles() {
		s.files[i].name = s.ownName(i)
	}
	links := make(map[string]string)
	for _, k := range s.linked() {
		_, target, err := s.linkTo(&k)
		if err != nil {
			panic(err)
		}
		links[k.path] = filepath.ToSlash(target)
	}
	return links
}

// Claimed returns what is claimed, and by whom.
func (r *Claims) Claimed() (all []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, e := range r.dirs {
		for _, n := range e.names {
			all = append(all, fmt.Sprintf("%v %q by %x", id, n.name, n.by.owner[:1]))
		}
		for file, by := range e.files {
			all = append(all, fmt.Sprintf("%v %v by %x", id, file, by.owner[:1]))
		}
	}
	slices.Sort(all)
	return all
}

// Abandon ends a Store as the end of its process would: nothing is saved, and the lock file stays.
func Abandon(store Store) error {
	s := store.(*fileStore)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	err := s.handles.closeAll()
	if s.unlock != nil {
		err = errors.Join(err, s.unlock(false))
	}
	return errors.Join(err, s.disk.Close())
}

// OpenDirectories returns how many directories are open.
func (r *Claims) OpenDirectories() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.open)
}

// IsClosing reports whether Close waits for the copy of a file.
func IsClosing(s Store) bool { return s.(*fileStore).closing.Load() }

// Used returns how many are used.
func (q *Quota) Used() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.used
}

// Places returns how many Places are known.
func (q *Quota) Places() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.places)
}

// Idle reports whether a Taker waits that may take.
func (q *Quota) Idle() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range q.places {
		for _, t := range p.queue {
			if t.may(p) {
				return true
			}
		}
	}
	return false
}

// VerifyDisk is VerifyDir for a directory that is open already, which it closes.
var VerifyDisk = verifyDisk

// LoseDirectory makes the handles of s and of its directory useless, as if that was mounted again.
func LoseDirectory(s Store) {
	f := s.(*fileStore)
	d := f.disk.(*rootDisk)
	d.self.Close()
	d.root.Close()
	for i := range f.files {
		f.handles.drop(i)
	}
}
