package storage_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/storage"
)

// A lazyDisk keeps what is written in a cache, as FUSE may do: it seems to be a hole until the file is synced. A lazyDisk makes links to
// no other disk.
type lazyDisk struct {
	storage.Disk
	opened func(name string)

	mu     sync.Mutex
	unsent map[string][][2]int64 // of each file, ranges from the first to before the second offset
}

func (d *lazyDisk) Open(name string, flag int) (storage.DiskFile, error) {
	f, err := d.Disk.Open(name, flag)
	if err != nil {
		return nil, err
	}
	if d.opened != nil {
		d.opened(name)
	}
	return &lazyFile{f, d, name}, nil
}

func (d *lazyDisk) Link(name string, to storage.Disk, as string) error {
	if to != storage.Disk(d) {
		return &os.LinkError{Op: "link", Old: name, New: as, Err: syscall.EXDEV}
	}
	return d.Disk.Link(name, d.Disk, as)
}

func (d *lazyDisk) wrote(name string, off int64, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unsent[name] = append(d.unsent[name], [2]int64{off, off + int64(n)})
}

type lazyFile struct {
	storage.DiskFile
	disk *lazyDisk
	name string
}

func (f *lazyFile) WriteAt(p []byte, off int64) (int, error) {
	f.disk.wrote(f.name, off, len(p))
	return f.DiskFile.WriteAt(p, off)
}

func (f *lazyFile) Writev(bufs [][]byte, off int64) error {
	f.disk.wrote(f.name, off, len(slices.Concat(bufs...)))
	return f.DiskFile.Writev(bufs, off)
}

func (f *lazyFile) Sync() error {
	f.disk.mu.Lock()
	delete(f.disk.unsent, f.name)
	f.disk.mu.Unlock()
	return f.DiskFile.Sync()
}

func (f *lazyFile) NextData(off, size int64) (start, end int64, err error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	start, end, err = f.DiskFile.NextData(off, size)
	for range f.disk.unsent[f.name] {
		for _, r := range f.disk.unsent[f.name] {
			if r[0] <= start && start < r[1] {
				start = r[1]
			} else if start < r[0] {
				end = min(end, r[0])
			}
		}
	}
	return min(start, size), max(start, end), err
}

func openLazy(t *testing.T, tor storage.Content, dir string) (storage.Store, *lazyDisk) {
	t.Helper()
	root, err := storage.OpenRoot(dir)
	require.NoError(t, err)
	disk := &lazyDisk{Disk: root, unsent: make(map[string][][2]int64)}
	s, err := storage.OpenDisk(tor, disk, dir, nil)
	require.NoError(t, err)
	require.NoError(t, s.SetWanted(all(tor)))
	return s, disk
}

// What was written a moment before a Move to another disk, or while it copies, is copied, although the system has it in its cache alone.
func TestMoveCopiesWhatIsInACache(t *testing.T) {
	const piece = 2 * layout.BlockSize
	tor, content := testContent(piece, 4*piece, 4*piece, 4*piece)
	old, dir := t.TempDir(), t.TempDir()
	s, _ := openLazy(t, tor, old)
	have := bits.New(tor.NumPieces())
	write := func(pieces ...int) {
		for _, i := range pieces {
			writePiece(t, tor, s, content, i)
			have.Add(i)
		}
	}
	write(0, 1, 4, 5)
	root, err := storage.OpenRoot(dir)
	require.NoError(t, err)
	late := []func(){
		sync.OnceFunc(func() { write(2, 6) }),    // one is being copied, the other not yet
		sync.OnceFunc(func() { write(3, 7, 8) }), // a file that did not exist
	}
	to := &lazyDisk{Disk: root, unsent: make(map[string][][2]int64), opened: func(name string) {
		switch filepath.Base(name) {
		case "0":
			late[0]()
		case "1":
			late[1]()
		}
	}}
	require.NoError(t, storage.MoveTo(t.Context(), s, to, dir, func() (bits.Set, map[int]bits.Set) { return have.Clone(), nil }))
	require.Equal(t, 9, have.Count())
	require.Equal(t, have, verified(t, tor, s))
	require.NoError(t, s.Close())
	require.Empty(t, listing(t, old))
}

// So is what was written to a file just before another program made a link to it, and it is replaced with a copy.
func TestACopyOfASharedFileHasWhatIsInACache(t *testing.T) {
	tor, content := testContent(2*layout.BlockSize, 8*layout.BlockSize)
	dir := t.TempDir()
	s, _ := openLazy(t, tor, dir)
	for i := range 3 {
		writePiece(t, tor, s, content, i)
	}
	if err := os.Link(filepath.Join(dir, "d", "0"), filepath.Join(t.TempDir(), "backup")); err != nil {
		t.Skip("no hard links here: ", err)
	}
	writePiece(t, tor, s, content, 3)
	require.Equal(t, bits.Full(4), verified(t, tor, s))
	require.NoError(t, s.Close())
}

// A shared file that is removed just before it would be replaced with a copy is made again, and so is its directory.
func TestASharedFileIsRemoved(t *testing.T) {
	for name, remove := range map[string]func(dir string) error{
		"itself":             func(dir string) error { return os.Remove(filepath.Join(dir, "0")) },
		"with its directory": os.RemoveAll,
	} {
		t.Run(name, func(t *testing.T) {
			h := shareAFile(t)
			dir := filepath.Dir(h.file)
			h.disk.opening = func(file string) {
				if filepath.Base(file) == "0" {
					if now, err := os.Stat(h.file); err == nil && now.Size() > 0 {
						require.NoError(t, remove(dir))
					}
				}
			}
			err := h.WriteBlocks([][]byte{pieceOf(h.content, h.bytes, 3)}, h.content.PieceOffset(3))
			require.NotErrorIs(t, err, fs.ErrNotExist)
			require.True(t, err == nil || errors.Is(err, storage.ErrChanged), err)
			now, err := os.ReadFile(h.users)
			require.NoError(t, err)
			require.Equal(t, h.before, now)
		})
	}
}

// branchDisk is a union of two file systems: file 1 cannot be linked into the new directory, and the others can.
type branchDisk struct{ storage.Disk }

func (d branchDisk) Link(name string, to storage.Disk, as string) error {
	if filepath.Base(name) == "1" {
		return &os.LinkError{Op: "link", Old: name, New: as, Err: syscall.EXDEV}
	}
	if other, ok := to.(stagingDisk); ok {
		to = other.Disk
	}
	return d.Disk.Link(name, to, as)
}

// Reads and writes do not wait while a file is copied because it alone cannot be linked.
func TestMoveOfFilesOfWhichSomeCanBeLinked(t *testing.T) {
	tor, content := testContent(50, 100, 100, 100)
	old, dir := t.TempDir(), t.TempDir()
	root, err := storage.OpenRoot(old)
	require.NoError(t, err)
	s, err := storage.OpenDisk(tor, branchDisk{root}, old, nil)
	require.NoError(t, err)
	require.NoError(t, s.SetWanted(all(tor)))
	for i := range tor.NumPieces() {
		writePiece(t, tor, s, content, i)
	}
	root, err = storage.OpenRoot(dir)
	require.NoError(t, err)
	copied := false
	to := stagingDisk{Disk: root, before: func() {
		copied = true
		require.False(t, storage.ReadsWait(s))
	}}
	have := bits.Full(tor.NumPieces())
	require.NoError(t, storage.MoveTo(t.Context(), s, to, dir, claim(have)))
	require.True(t, copied)
	require.Equal(t, have, verified(t, tor, s))
	require.NoError(t, s.Close())
	require.Empty(t, listing(t, old))
}
