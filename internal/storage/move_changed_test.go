package storage_test

import (
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
)

// stagingDisk calls a function before the copy of file 1 is made, and another one for file 2.
type stagingDisk struct {
	storage.Disk
	before, last func()
}

func (d stagingDisk) Open(name string, flag int) (storage.DiskFile, error) {
	switch {
	case filepath.Base(name) == "1":
		d.before()
	case filepath.Base(name) == "2" && d.last != nil && flag&os.O_EXCL != 0:
		d.last()
	}
	return d.Disk.Open(name, flag)
}

// Reads and writes do not wait while a file is copied that was made while others were.
func TestMoveCopiesWhatIsMadeMeanwhile(t *testing.T) {
	tor, content := testContent(50, 200, 100, 100)
	old, dir := t.TempDir(), t.TempDir()
	disks := onDisks(t, true, func() {}, old, dir)
	s, err := storage.OpenDisk(tor, disks[0], old, nil)
	require.NoError(t, err)
	require.NoError(t, s.SetWanted(all(tor)))
	have := bits.New(tor.NumPieces())
	write := func(from, to int) {
		for piece := from; piece < to; piece++ {
			writePiece(t, tor, s, content, piece)
			have.Add(piece)
		}
	}
	write(0, 6)
	copied := false
	disks[1].Disk = stagingDisk{disks[1].Disk, sync.OnceFunc(func() { write(6, 8) }), func() {
		copied = true
		require.False(t, storage.ReadsWait(s))
	}}
	require.NoError(t, storage.MoveTo(t.Context(), s, disks[1], dir, func() (bits.Set, map[int]bits.Set) { return have.Clone(), nil }))
	require.True(t, copied)
	require.Equal(t, tor.NumPieces(), verified(t, tor, s).Count())
	require.NoError(t, s.Close())
	require.Empty(t, listing(t, old))
}

// Content that becomes complete while its edges are copied, which removes them, is moved.
func TestMoveOfEdgesThatAreRemoved(t *testing.T) {
	tor, content := testContent(50, 40, 60)
	old, dir := t.TempDir(), t.TempDir()
	disks := onDisks(t, true, func() {}, old, dir)
	s, err := storage.OpenDisk(tor, disks[0], old, nil)
	require.NoError(t, err)
	require.NoError(t, s.SetWanted([]bool{true, false}))
	writePiece(t, tor, s, content, 0)
	done := false
	disks[1].Disk = stagingDisk{Disk: disks[1].Disk, before: func() {}, last: func() {
		done = true
		require.NoError(t, s.SetWanted(all(tor)))
		writePiece(t, tor, s, content, 1)
		require.NoError(t, s.Finish())
	}}
	require.NoError(t, storage.MoveTo(t.Context(), s, disks[1], dir, claim(bits.Full(2))))
	require.True(t, done)
	require.Equal(t, tor.NumPieces(), verified(t, tor, s).Count())
	require.NoError(t, s.Close())
	require.Empty(t, listing(t, old))
	require.Equal(t, []string{"d/0", "d/1"}, listing(t, dir))
}

// A file that another program changes while it is copied, and that Refresh then accepts, is copied again.
func TestMoveCopiesAgainWhatIsAccepted(t *testing.T) {
	tor, content := testContent(50, 200, 100, 100)
	old, dir := t.TempDir(), t.TempDir()
	fill(t, tor, old, content)
	require.NoError(t, os.WriteFile(old+"/d/0", make([]byte, 200), 0o666))
	disks := onDisks(t, true, func() {}, old, dir)
	var s storage.Store
	have := bits.Full(tor.NumPieces())
	disks[1].Disk = stagingDisk{Disk: disks[1].Disk, before: sync.OnceFunc(func() {
		require.NoError(t, os.WriteFile(old+"/d/0", content[:200], 0o666)) // another program completes it
		_, err := s.Refresh(0, have)
		require.NoError(t, err)
		require.Equal(t, tor.NumPieces(), verified(t, tor, s).Count())
	})}
	s, err := storage.OpenDisk(tor, disks[0], old, nil)
	require.NoError(t, err)
	require.NoError(t, s.SetWanted(all(tor)))
	require.NoError(t, storage.MoveTo(t.Context(), s, disks[1], dir, claim(have)))
	piece, err := s.AnyChanged(t.Context(), have)
	require.Equal(t, -1, piece, err)
	require.Equal(t, tor.NumPieces(), verified(t, tor, s).Count(), "what counts as verified is there")
	require.NoError(t, s.Close())
	require.Empty(t, listing(t, old))
}

// A file with which another program replaces one that was linked stays in the old directory.
func TestMoveKeepsWhatReplacesALinkedFile(t *testing.T) {
	tor, content := testContent(50, 200, 100)
	old, dir := t.TempDir(), t.TempDir()
	fill(t, tor, old, content)
	replaced := false
	disks := onDisks(t, false, func() {
		if _, err := os.Stat(dir + "/d/1"); err != nil || replaced {
			return
		}
		replaced = true
		require.NoError(t, os.WriteFile(old+"/d/new", []byte("saved"), 0o666))
		require.NoError(t, os.Rename(old+"/d/new", old+"/d/0"))
	}, old, dir)
	s, err := storage.OpenDisk(tor, disks[0], old, nil)
	require.NoError(t, err)
	require.NoError(t, s.SetWanted(all(tor)))
	require.NoError(t, storage.MoveTo(t.Context(), s, disks[1], dir, claim(bits.Full(tor.NumPieces()))))
	require.True(t, replaced)
	require.Equal(t, []string{"d/0"}, listing(t, old))
	require.Equal(t, tor.NumPieces(), verified(t, tor, s).Count())
	require.NoError(t, s.Close())
}

// A file that another program removed is left out, and is known to have changed.
func TestMoveOfARemovedFile(t *testing.T) {
	for name, apart := range map[string]bool{"by name": false, "by copy": true, "while it is copied": true} {
		t.Run(name, func(t *testing.T) {
			tor, content := testContent(50, 200, 100)
			old, dir := t.TempDir(), t.TempDir()
			fill(t, tor, old, content)
			disks := onDisks(t, apart, func() {}, old, dir)
			s, err := storage.OpenDisk(tor, disks[0], old, nil)
			require.NoError(t, err)
			require.NoError(t, s.SetWanted(all(tor)))
			require.NoError(t, s.Settle(t.Context(), bits.Full(tor.NumPieces())))
			remove := func() { require.NoError(t, os.Remove(old+"/d/1")) }
			if name == "while it is copied" {
				disks[1].Disk = stagingDisk{Disk: disks[1].Disk, before: sync.OnceFunc(remove)}
			} else {
				remove()
			}
			require.NoError(t, storage.MoveTo(t.Context(), s, disks[1], dir, claim(bits.Full(tor.NumPieces()))))
			require.NoError(t, s.ChangedFile(0))
			require.ErrorIs(t, s.ChangedFile(1), storage.ErrChanged)
			require.Equal(t, 4, verified(t, tor, s).Count())
			require.NoError(t, s.Close())
			require.Empty(t, listing(t, old))
			require.NotContains(t, listing(t, dir), "d/1")
		})
	}
}

// A file that another program wrote to while it was copied stays in the old directory, even if the store wrote to it afterwards.
func TestMoveKeepsWhatIsWrittenTo(t *testing.T) {
	tor, content := testContent(50, 200, 100)
	old, dir := t.TempDir(), t.TempDir()
	fill(t, tor, old, content)
	disks := onDisks(t, true, func() {}, old, dir)
	var s storage.Store
	disks[1].Disk = stagingDisk{Disk: disks[1].Disk, before: sync.OnceFunc(func() {
		require.NoError(t, os.WriteFile(old+"/d/0", append([]byte("edited"), content[6:200]...), 0o666))
		writePiece(t, tor, s, content, 3)
	})}
	s, err := storage.OpenDisk(tor, disks[0], old, nil)
	require.NoError(t, err)
	require.NoError(t, s.SetWanted(all(tor)))
	writePiece(t, tor, s, content, 2)
	require.NoError(t, storage.MoveTo(t.Context(), s, disks[1], dir, claim(bits.Full(tor.NumPieces()))))
	b, err := os.ReadFile(old + "/d/0")
	require.NoError(t, err)
	require.Equal(t, "edited", string(b[:6]))
	require.ErrorIs(t, s.ChangedFile(0), storage.ErrChanged)
	require.NoError(t, s.Close())
}

// A file of another program stays where it is, even if an earlier run found it there.
func TestMoveLeavesWhatAnEarlierRunFound(t *testing.T) {
	tor, content := testContent(50, 100, 100, 50)
	old, dir := t.TempDir(), t.TempDir()
	require.NoError(t, os.Mkdir(old+"/d", 0o777))
	require.NoError(t, os.WriteFile(old+"/d/1", []byte("another's"), 0o666))
	first := only(tor, func(i int) bool { return i != 1 })
	s := openDirectory(t, tor, old)
	require.NoError(t, s.SetWanted(first))
	writePiece(t, tor, s, content, 0)
	require.NoError(t, s.SaveResume(set(5, 0), nil))
	require.NoError(t, s.Close())

	s = openDirectory(t, tor, old)
	require.NoError(t, s.SetWanted(first))
	require.NoError(t, s.Move(t.Context(), dir, claim(set(5, 0)), func(int64, int64) {}))
	require.Equal(t, []string{"d/1"}, listing(t, old))
	require.Equal(t, []int{0}, pieces(verified(t, tor, s)))
	require.NoError(t, s.Close())
}

// Of a file that another program changes after the claims for the sidecar were taken, and that Refresh then accepts, nothing is
// claimed.
func TestMoveClaimsNothingOfWhatIsAccepted(t *testing.T) {
	tor, content := testContent(50, 100, 100, 100)
	old, dir := t.TempDir(), t.TempDir()
	s := openDirectory(t, tor, old)
	require.NoError(t, s.SetWanted(all(tor)))
	have := set(6, 0, 1, 2, 3)
	for piece := range have.All() {
		writePiece(t, tor, s, content, piece)
	}
	calls := 0
	claims := func() (bits.Set, map[int]bits.Set) {
		if calls++; calls == 2 {
			require.NoError(t, os.WriteFile(filepath.Join(old, "d", "1"), make([]byte, 90), 0o666))
			_, err := s.Refresh(2, bits.Full(6))
			require.NoError(t, err)
		}
		return have, nil
	}
	require.NoError(t, s.Move(t.Context(), dir, claims, func(int64, int64) {}))
	require.Equal(t, 2, calls)
	require.NoError(t, s.Close())
	claimed, _ := openDirectory(t, tor, dir).LoadResume()
	require.Equal(t, []int{0, 1}, pieces(claimed))
}

// A file that was found and is in doubt while the content is moved goes along, and is found to be right again.
func TestMoveTakesWhatIsInDoubtAlong(t *testing.T) {
	tor, content := testContent(50, 200, 100)
	old, dir := t.TempDir(), t.TempDir()
	fill(t, tor, old, content)
	s := openDirectory(t, tor, old)
	require.NoError(t, s.SetWanted(all(tor)))
	require.NoError(t, s.Settle(t.Context(), bits.Full(tor.NumPieces())))
	require.NoError(t, s.Move(t.Context(), dir, claim(set(6, 4, 5)), func(int64, int64) {}))
	require.Equal(t, tor.NumPieces(), verified(t, tor, s).Count())
	require.NoError(t, s.Close())
	require.Empty(t, listing(t, old))
}

// A file of which it is known that another program took it away is still known to have changed after a Move.
func TestMoveForgetsNoChange(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("an open file cannot be renamed here")
	}
	tor, content := testContent(50, 100, 100)
	dir, to := t.TempDir(), t.TempDir()
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	download(t, tor, s, content)
	require.NoError(t, os.Rename(filepath.Join(dir, "d", "1"), filepath.Join(dir, "d", "0")))
	require.NoError(t, os.Chtimes(filepath.Join(dir, "d", "0"), time.Time{}, time.Unix(1e9, 0)))
	_, err := s.WriteAt(content[:25], 0)
	require.ErrorIs(t, err, storage.ErrChanged)
	require.ErrorIs(t, s.Changed(2), storage.ErrChanged)
	claims := func() (bits.Set, map[int]bits.Set) { return bits.Full(4), nil }
	require.NoError(t, s.Move(t.Context(), to, claims, func(int64, int64) {}))
	require.ErrorIs(t, s.Changed(2), storage.ErrChanged)
}
