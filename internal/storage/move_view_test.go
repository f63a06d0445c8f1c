package storage_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/storage/disktest"
)

// viewDisk is a view of a directory, like a FUSE or network file system: it has identities of its own, and no links, locks or
// claims.
type viewDisk struct {
	storage.Disk
	number uint64
}

func (d viewDisk) Stat(name string) (storage.FileInfo, error) {
	info, err := d.Disk.Stat(name)
	info.ID.Dev += d.number
	return info, err
}

func (d viewDisk) Link(name string, _ storage.Disk, as string) error {
	return &os.LinkError{Op: "link", Old: name, New: as, Err: errors.ErrUnsupported}
}

func (d viewDisk) Lock(string, bool) (func(bool) error, error) {
	return func(bool) error { return nil }, nil
}

func (d viewDisk) Claim([20]byte, []storage.Claim) (func(), error) { return func() {}, nil }

// If the new directory is the old one, or contains parts of it, by another path, a Move does not remove files there as if an
// earlier Move had left them.
func TestMoveToTheSameFilesByAnotherPath(t *testing.T) {
	tor, content := testContent(50, 200, 100)
	for name, c := range map[string]struct {
		prepare func(t *testing.T, root string) // called when the content is in root/old
		number  uint64                          // device of the new view; that of the old one is 0
		err     error
	}{
		"another view": {func(t *testing.T, root string) {
			require.NoError(t, os.Symlink("old", root+"/new"))
		}, 1, nil},
		"a view of what is below": {func(t *testing.T, root string) {
			require.NoError(t, os.Mkdir(root+"/new", 0o777))
			require.NoError(t, os.Rename(root+"/old/d", root+"/new/d"))
			require.NoError(t, os.Symlink(root+"/new/d", root+"/old/d"))
		}, 1, fs.ErrExist},
		"with other names": {func(t *testing.T, root string) {
			require.NoError(t, os.Mkdir(root+"/new", 0o777))
			require.NoError(t, os.Rename(root+"/old/d", root+"/new/d"))
			require.NoError(t, os.Symlink(root+"/new/d", root+"/old/d"))
			require.NoError(t, os.Link(root+"/new/d/0", root+"/elsewhere"))
			require.NoError(t, os.Link(root+"/new/d/1", root+"/elsewhere2"))
		}, 0, fs.ErrExist},
	} {
		t.Run(name, func(t *testing.T) {
			if runtime.GOOS == "windows" {
				t.Skip("symbolic links")
			}
			root := t.TempDir()
			old, dir := filepath.Join(root, "old"), filepath.Join(root, "new")
			fill(t, tor, old, content)
			c.prepare(t, root)
			before := listing(t, root)
			disk, err := storage.OpenRoot(dir)
			require.NoError(t, err)
			from, err := storage.OpenRoot(old)
			require.NoError(t, err)
			s, err := storage.OpenDisk(tor, viewDisk{from, 0}, old, nil)
			require.NoError(t, err)
			require.NoError(t, s.SetWanted(all(tor)))
			err = storage.MoveTo(t.Context(), s, viewDisk{disk, c.number}, dir, claim(bits.Full(tor.NumPieces())))
			if c.err != nil {
				require.ErrorIs(t, err, c.err)
			} else {
				require.ErrorContains(t, err, "the same directory")
			}
			require.Equal(t, before, listing(t, root))
			require.Equal(t, tor.NumPieces(), verified(t, tor, s).Count())
			require.NoError(t, s.Close())
		})
	}
}

// partDisk is one branch of a union, which has files on another one.
type partDisk struct {
	viewDisk
	elsewhere string
}

func (d partDisk) Stat(name string) (storage.FileInfo, error) {
	if filepath.ToSlash(name) == d.elsewhere {
		return storage.FileInfo{}, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	return d.viewDisk.Stat(name)
}

// A Move from a union of directories to one of these that has some of the files fails: it used to do nothing, as if all of them were there.
func TestMoveToABranchOfAUnion(t *testing.T) {
	tor, content := testContent(50, 200, 100)
	dir := t.TempDir()
	fill(t, tor, dir, content)
	before := listing(t, dir)
	for name, elsewhere := range map[string]string{filepath.FromSlash("d/1") + " is elsewhere": "d/1", "the same directory": ""} {
		from, err := storage.OpenRoot(dir)
		require.NoError(t, err)
		to, err := storage.OpenRoot(dir)
		require.NoError(t, err)
		s, err := storage.OpenDisk(tor, viewDisk{from, 0}, "union", nil)
		require.NoError(t, err)
		require.NoError(t, s.SetWanted(all(tor)))
		err = storage.MoveTo(t.Context(), s, partDisk{viewDisk{to, 1}, elsewhere}, "branch", claim(bits.Full(tor.NumPieces())))
		require.ErrorContains(t, err, name)
		require.Equal(t, before, listing(t, dir))
		require.Equal(t, tor.NumPieces(), verified(t, tor, s).Count())
		require.NoError(t, s.Close())
		require.NoError(t, to.Close())
	}
}

// If the new directory is the parent of the old one, a file of the content may exist at the new path of another. It is not
// mistaken for a copy.
func TestMoveToWhereAnotherFileIs(t *testing.T) {
	tor, content := named(1, "d/d/a", "d/a")
	root := t.TempDir()
	old := filepath.Join(root, "d")
	require.NoError(t, os.MkdirAll(old+"/d/d", 0o777))
	copy(content[len(content)/2:], content[:len(content)/2])
	at := time.Unix(1e9, 0)
	for name, b := range map[string][]byte{"d/d/a": content[:len(content)/2], "d/a": content[len(content)/2:]} {
		require.NoError(t, os.WriteFile(filepath.Join(old, name), b, 0o666))
		require.NoError(t, os.Chtimes(filepath.Join(old, name), at, at))
	}
	before := listing(t, root)
	s := openDirectory(t, tor, old)
	require.NoError(t, s.SetWanted(all(tor)))
	err := s.Move(t.Context(), root, claim(bits.Full(tor.NumPieces())), func(int64, int64) {})
	require.ErrorIs(t, err, fs.ErrExist)
	require.Equal(t, before, listing(t, root))
}

// A file that another program changes or replaces while it is copied to another file system stays, with what was written to it.
func TestMoveKeepsWhatIsChangedMeanwhile(t *testing.T) {
	tor, content := testContent(50, 200, 100, 100)
	old, dir := t.TempDir(), t.TempDir()
	fill(t, tor, old, content)
	changed := false
	disks := onDisks(t, true, func() {
		if _, err := os.Stat(filepath.Join(dir, sidecar(tor, ".move"), "1")); err != nil || changed {
			return
		}
		changed = true
		require.NoError(t, os.WriteFile(old+"/d/0", []byte("edited"), 0o666))
		require.NoError(t, os.WriteFile(old+"/d/new", []byte("saved"), 0o666))
		require.NoError(t, os.Rename(old+"/d/new", old+"/d/1"))
	}, old, dir)
	s, err := storage.OpenDisk(tor, disks[0], old, nil)
	require.NoError(t, err)
	require.NoError(t, s.SetWanted(all(tor)))
	have := bits.Full(tor.NumPieces())
	require.NoError(t, storage.MoveTo(t.Context(), s, disks[1], dir, claim(have)))
	require.True(t, changed)
	require.Equal(t, []string{"d/0", "d/1"}, listing(t, old))
	for name, want := range map[string]string{"d/0": "edited", "d/1": "saved"} {
		b, err := os.ReadFile(filepath.Join(old, name))
		require.NoError(t, err)
		require.Equal(t, want, string(b))
	}
	require.ErrorIs(t, s.ChangedFile(0), storage.ErrChanged, "it is hashed again")
	require.ErrorIs(t, s.ChangedFile(1), storage.ErrChanged)
	require.NoError(t, s.ChangedFile(2))
	require.NoError(t, s.Close())
}

// A Move fails if a file exists at the path of one that is not written yet: it would be overwritten later.
func TestMoveToWhereAFileWillBeMade(t *testing.T) {
	tor, content := testContent(50, 100, 100)
	old, dir := t.TempDir(), t.TempDir()
	s := openDirectory(t, tor, old)
	require.NoError(t, s.SetWanted(all(tor)))
	writePiece(t, tor, s, content, 0)
	require.NoError(t, os.Mkdir(dir+"/d", 0o777))
	require.NoError(t, os.WriteFile(dir+"/d/1", []byte("another's"), 0o666))
	before := listing(t, old)
	move := func() error { return s.Move(t.Context(), dir, claim(set(4, 0)), func(int64, int64) {}) }
	require.ErrorIs(t, move(), fs.ErrExist)
	require.Equal(t, before, listing(t, old))
	require.Equal(t, []string{"d/1"}, listing(t, dir))
	require.NoError(t, s.SetWanted(only(tor, func(i int) bool { return i == 0 })))
	require.NoError(t, os.Remove(dir+"/d/1"))
	require.NoError(t, move())
	require.Equal(t, []int{0}, pieces(verified(t, tor, s)))
}

// completeStore opens a Store on a disk and completes its content.
func completeStore(t *testing.T, d storage.Disk) (tor storage.Content, s storage.Store) {
	tor, content := testContent(50, 200, 100)
	s = openForgetful(t, tor, d)
	require.NoError(t, s.SetWanted(all(tor)))
	for i := range tor.NumPieces() {
		writePiece(t, tor, s, content, i)
	}
	require.NoError(t, s.Finish())
	return tor, s
}

// Content can be moved away from a disk that has no room even for the file of a lock.
func TestMoveFromAFullDisk(t *testing.T) {
	d := disktest.New()
	tor, s := completeStore(t, d.Sub("old"))
	d.Fail = func(call, name string) error {
		if call == "lock" && strings.HasPrefix(name, "old") {
			return syscall.ENOSPC
		}
		return nil
	}
	require.NoError(t, storage.MoveTo(t.Context(), s, d.Sub("new"), "new", claim(bits.Full(tor.NumPieces()))))
	require.NotContains(t, strings.Join(d.Names(), " "), "old/")
	require.Equal(t, tor.NumPieces(), verified(t, tor, s).Count())
	require.NoError(t, s.Close())
	require.NotContains(t, strings.Join(d.Held(), " "), "lock")
}

// By the time a Move commits, the disk may have room for the lock. Then the Move takes it, and fails if another Store has it.
func TestMoveFromADiskThatWasFull(t *testing.T) {
	for _, later := range []error{nil, storage.ErrInUse} {
		d := disktest.New()
		tor, s := completeStore(t, d.Sub("old"))
		full := true
		d.Fail = func(call, name string) error {
			if call == "lock" && strings.HasPrefix(name, "old") {
				if full {
					full = false
					return syscall.ENOSPC
				}
				return later
			}
			return nil
		}
		require.ErrorIs(t, storage.MoveTo(t.Context(), s, d.Sub("new"), "new", claim(bits.Full(tor.NumPieces()))), later)
		require.Equal(t, later != nil, strings.Contains(strings.Join(d.Names(), " "), "old/d/0"))
		require.Equal(t, tor.NumPieces(), verified(t, tor, s).Count())
		require.NoError(t, s.Close())
		require.NotContains(t, strings.Join(d.Held(), " "), "lock")
	}
}
