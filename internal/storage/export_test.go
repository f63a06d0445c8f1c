package storage

import (
	"context"
	"path/filepath"

	"github.com/shoal-go/torrent/internal/bits"
)

// Internals that the tests of this package look at.

const (
	MaxHandles  = maxHandles
	ResumeMagic = resumeMagic
)

// OpenHandles is how many files s has open.
func OpenHandles(s Store) int {
	p := s.(*fileStore).handles
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.files)
}

// DropHandle forgets the open handle of file i, so that it is opened by its name again.
func DropHandle(s Store, i int) { s.(*fileStore).handles.drop(i) }

// MapsAreMany is what SetMapsAreMany replaces, from the next map on.
var MapsAreMany = mapsAreMany

func SetMapsAreMany(s Store, are func() bool) {
	s.(*fileStore).mapsAreMany = are
}

// OpenRoot is the directory of a real file system.
func OpenRoot(dir string) (Disk, error) { return openRoot(dir) }

// MoveTo is Move to a directory that is open.
func MoveTo(ctx context.Context, s Store, to Disk, dir string, claims func() (bits.Set, map[int]bits.Set)) error {
	return s.(*fileStore).moveTo(ctx, to, dir, claims, func(int64, int64) {})
}

// LinksOf are the symbolic links that may be made, and where they lead from where they lie.
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
