package storage_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/storage"
)

// dirsDisk counts what is done with directories.
type dirsDisk struct {
	storage.Disk
	made, synced int
	remove       func(name string)
}

func (d *dirsDisk) MkdirAll(name string) error { d.made++; return d.Disk.MkdirAll(name) }
func (d *dirsDisk) SyncDir(name string) error  { d.synced++; return d.Disk.SyncDir(name) }
func (d *dirsDisk) SyncAll() (bool, error)     { return true, nil }

func (d *dirsDisk) Link(name string, to storage.Disk, as string) error {
	return d.Disk.Link(name, to.(*dirsDisk).Disk, as)
}

func (d *dirsDisk) RemoveDir(name string) error {
	if d.remove != nil {
		d.remove(name)
	}
	return d.Disk.RemoveDir(name)
}

// A Move of files in very many directories does not sync these one by one, nor make each by itself, nor remove them while reads and
// writes wait; and its context ends it.
func TestMoveOfManyDirectories(t *testing.T) {
	const n, depth = 60, 8
	var files []layout.File
	for i := range n {
		files = append(files, layout.File{Path: "d/" + strings.Repeat(strconv.Itoa(i)+"/", depth) + "f", Length: 1})
	}
	content := make([]byte, n)
	tor := contentOf(layout.New(50, files...), content)
	for _, cut := range []bool{false, true} {
		ctx, cancel := context.WithCancelCause(t.Context())
		old, dir := t.TempDir(), t.TempDir()
		var disks []*dirsDisk
		for _, dir := range []string{old, dir} {
			d, err := storage.OpenRoot(dir)
			require.NoError(t, err)
			disks = append(disks, &dirsDisk{Disk: d})
		}
		s, err := storage.OpenDisk(tor, disks[0], old, nil)
		require.NoError(t, err)
		require.NoError(t, s.SetWanted(all(tor)))
		for piece := range tor.NumPieces() {
			writePiece(t, tor, s, content, piece)
		}
		removed := 0
		disks[0].remove = func(name string) {
			if info, err := os.Stat(filepath.Join(old, name)); err == nil && info.IsDir() {
				removed++
				require.False(t, storage.ReadsWait(s))
				if cut && removed == 10 {
					cancel(errors.New("enough"))
				}
			}
		}
		require.NoError(t, storage.MoveTo(ctx, s, disks[1], dir, claim(bits.Full(tor.NumPieces()))))
		require.LessOrEqual(t, disks[1].made, n+1)
		require.Less(t, disks[0].synced+disks[1].synced, 10)
		require.Equal(t, tor.NumPieces(), verified(t, tor, s).Count())
		entries, err := os.ReadDir(old)
		require.NoError(t, err)
		if cut {
			require.Equal(t, 10, removed)
			require.NotEmpty(t, entries)
		} else {
			require.Equal(t, n*depth+1, removed)
			require.Empty(t, entries)
		}
		require.NoError(t, s.Close())
		cancel(nil)
	}
}

// A directory that a Move empties may be that of another download, which has made nothing there yet; so may one that a Move made
// which then fails.
func TestMoveSparesTheDirectoriesOfOthers(t *testing.T) {
	mine, content := named(1, "d/a/x", "d/b/x")
	theirs, other := named(2, "d/a/x")
	for _, fails := range []bool{false, true} {
		var r storage.Claims
		old, dir := t.TempDir(), filepath.Join(t.TempDir(), "made", "here")
		first, err := r.OpenFiles(mine, old, nil)
		require.NoError(t, err)
		require.NoError(t, first.SetWanted(all(mine)))
		download(t, mine, first, content)
		var second storage.Store
		open := func(dir string) {
			second, err = r.OpenFiles(theirs, dir, nil)
			require.NoError(t, err)
		}
		if fails {
			ctx, cancel := context.WithCancel(t.Context())
			calls := 0
			err := first.Move(ctx, dir, func() (bits.Set, map[int]bits.Set) {
				if calls++; calls == 2 { // the last step
					open(dir)
					cancel()
				}
				return bits.Full(mine.NumPieces()), nil
			}, func(int64, int64) {})
			require.ErrorIs(t, err, context.Canceled)
		} else {
			open(old + "/d/a")
			require.NoError(t, first.Move(t.Context(), dir, claim(bits.Full(mine.NumPieces())), func(int64, int64) {}))
			require.NoDirExists(t, old+"/d/b")
		}
		require.NoError(t, second.SetWanted(all(theirs)))
		download(t, theirs, second, other)
		require.NoError(t, first.Close())
		require.NoError(t, second.Close())
		require.Zero(t, r.OpenDirectories())
	}
}

// The user may have put a symbolic link in the place of a directory, to where other files are as well.
func TestMoveSparesLinkedDirectories(t *testing.T) {
	needSymlinks(t)
	old, dir := t.TempDir(), t.TempDir()
	theirs := filepath.Join(old, "theirs", "d")
	require.NoError(t, os.MkdirAll(theirs, 0o777))
	require.NoError(t, os.WriteFile(filepath.Join(theirs, "y"), nil, 0o666))
	require.NoError(t, os.Symlink(filepath.Join("theirs", "d"), filepath.Join(old, "d")))
	tor, content := named(1, "d/a/x")
	s := openDirectory(t, tor, old)
	require.NoError(t, s.SetWanted(all(tor)))
	download(t, tor, s, content)
	require.NoError(t, s.Move(t.Context(), dir, claim(bits.Full(tor.NumPieces())), func(int64, int64) {}))
	require.NoError(t, s.Close())
	require.Equal(t, []string{"d > theirs/d"}, linksIn(t, old))
	require.Equal(t, []string{"d", "theirs/d/y"}, listing(t, old))
	require.Equal(t, []string{"d/a/x"}, listing(t, dir))
}

// While reads and writes wait, a file that was copied gets only its name: to sync it may take as long as a disk turns.
func TestMoveOfManyFilesByCopy(t *testing.T) {
	const n = 40
	tor, content := testContent(50, slices.Repeat([]int64{30}, n)...)
	old, dir := t.TempDir(), t.TempDir()
	var s storage.Store
	calls := 0
	disks := onDisks(t, true, func() {
		if s != nil && storage.ReadsWait(s) {
			calls++
		}
	}, old, dir)
	opened, err := storage.OpenDisk(tor, disks[0], old, nil)
	require.NoError(t, err)
	require.NoError(t, opened.SetWanted(all(tor)))
	for piece := range tor.NumPieces() {
		writePiece(t, tor, opened, content, piece)
	}
	s = opened
	have := bits.Full(tor.NumPieces())
	require.NoError(t, storage.MoveTo(t.Context(), s, disks[1], dir, claim(have)))
	require.LessOrEqual(t, calls, 3*n)
	require.Equal(t, have, verified(t, tor, s))
	piece, err := s.AnyChanged(t.Context(), have)
	require.NoError(t, err)
	require.Equal(t, -1, piece)
	require.NoError(t, s.Close())
}
