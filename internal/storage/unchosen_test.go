package storage_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
)

// A verified piece is not written to a file that is not chosen any more and that another program has replaced or overwritten. The pieces
// that the file held are in doubt.
func TestAnUnchosenFileIsSparedOnceItIsReplaced(t *testing.T) {
	for name, suffix := range map[string]string{"replaced": ".new", "overwritten": ""} {
		t.Run(name, func(t *testing.T) {
			if runtime.GOOS == "windows" {
				t.Skip("an open file cannot be replaced here")
			}
			tor, content := testContent(50, 30, 100)
			dir := t.TempDir()
			path := filepath.Join(dir, "d", "1")
			s := openDirectory(t, tor, dir)
			require.NoError(t, s.SetWanted(all(tor)))
			writePiece(t, tor, s, content, 2)
			require.NoError(t, s.SetWanted([]bool{true, false}))
			require.NoError(t, s.Settle(t.Context(), set(3, 2)))
			foreign := bytes.Repeat([]byte{'x'}, 90)
			require.NoError(t, os.WriteFile(path+suffix, foreign, 0o666))
			require.NoError(t, os.Rename(path+suffix, path))

			require.ErrorIs(t, s.WriteBlocks([][]byte{content[:50]}, 0), storage.ErrChanged)
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, foreign, b)
			require.ErrorIs(t, s.Changed(2), storage.ErrChanged)
			_, err = s.Refresh(2, bits.Full(3))
			require.NoError(t, err)
			writePiece(t, tor, s, content, 0)
			require.Equal(t, []int{0}, pieces(verified(t, tor, s)))
			require.NoError(t, s.Changed(0))
			require.ErrorIs(t, s.Changed(2), storage.ErrChanged, "its bytes are not there")
			b, err = os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, foreign, b)
			require.NoError(t, s.Close())
		})
	}
}

// A file that is touched, and not chosen any more while its pieces wait to be hashed, loses none of them.
func TestATouchedFileThatIsNotChosenAnyMoreIsKept(t *testing.T) {
	tor, content := testContent(50, 30, 100)
	dir := t.TempDir()
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	for i := range 3 {
		writePiece(t, tor, s, content, i)
	}
	require.NoError(t, os.Chtimes(filepath.Join(dir, "d", "1"), time.Time{}, time.Now().Add(-time.Hour)))
	_, err := s.Refresh(0, bits.Full(3))
	require.NoError(t, err)
	require.NoError(t, s.SetWanted([]bool{true, false}))
	require.NoError(t, s.Settle(t.Context(), bits.New(3)))
	require.Equal(t, 3, verified(t, tor, s).Count())
	require.NoError(t, s.Close())
}

// A verified piece whose file another program has made is in doubt after a Move as before it, although the file stays behind.
func TestDoubtOutlastsAMove(t *testing.T) {
	tor, content := testContent(50, 30, 100)
	dir := t.TempDir()
	path := filepath.Join(dir, "d", "1")
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted([]bool{true, false}))
	writePiece(t, tor, s, content, 0)
	require.NoError(t, os.WriteFile(path, make([]byte, 100), 0o666))
	require.NoError(t, s.SetWanted(all(tor)))
	require.ErrorIs(t, s.Changed(0), storage.ErrChanged)
	require.NoError(t, s.Move(t.Context(), t.TempDir(), claim(set(3, 0)), func(int64, int64) {}))
	require.FileExists(t, path)
	require.ErrorIs(t, s.Changed(0), storage.ErrChanged)
	require.NoError(t, s.Close())
}

// A file that is not chosen any more, and that another program removed and put back, counts as changed before it is left alone: pieces
// may have been found in it. If it is gone once it is chosen again, none of them counts as verified.
func TestAnUnchosenFileIsPutBack(t *testing.T) {
	tor, content := testContent(50, 30, 200, 50)
	dir := t.TempDir()
	path := filepath.Join(dir, "d", "1")
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	for i := range tor.NumPieces() {
		writePiece(t, tor, s, content, i)
	}
	require.NoError(t, s.SetWanted([]bool{true, false, true}))
	require.NoError(t, s.Settle(t.Context(), bits.Full(6)))
	require.NoError(t, os.Rename(path, path+".away"))
	_, err := s.Refresh(1, bits.Full(6))
	require.NoError(t, err)
	require.NoError(t, os.Rename(path+".away", path))
	var have bits.Set
	hash := func() {
		have = bits.New(6)
		require.NoError(t, storage.Verify(t.Context(), tor, s, bits.Full(6), func(i int, ok bool) {
			if ok {
				require.NoError(t, s.PieceVerified(i))
				have.Add(i)
			}
		}))
	}
	hash()
	require.Equal(t, bits.Full(6), have)

	for _, i := range []int{0, 4} { // at the edges of the file
		err := s.WriteBlocks([][]byte{pieceOf(tor, content, i)}, tor.PieceOffset(i))
		if errors.Is(err, storage.ErrChanged) {
			_, err = s.Refresh(i, bits.Full(6))
			hash()
		}
		require.NoError(t, err)
	}
	require.NoError(t, os.Remove(path))
	require.NoError(t, s.SetWanted(all(tor)))
	for i := range have.All() {
		b := make([]byte, tor.PieceSize(i))
		if s.Changed(i) == nil && readFull(s, b, tor.PieceOffset(i)) == nil {
			require.Equal(t, pieceOf(tor, content, i), b, "piece %d, which was verified", i)
		}
	}
	require.NoError(t, s.Close())
}

// All of the content may be verified while a file of another program lies in the place of one that is not chosen. The next run then finds
// the bytes of that one in the edges.
func TestBytesOfAnUnchosenFileOfWholeContentAreKept(t *testing.T) {
	tor, content := testContent(50, 80, 20, 50)
	dir := t.TempDir()
	path := filepath.Join(dir, "d", "1")
	foreign := bytes.Repeat([]byte{'x'}, 30)
	for run := range 2 {
		s := openDirectory(t, tor, dir)
		require.NoError(t, s.SetWanted([]bool{true, false, true}))
		if run == 1 {
			require.Equal(t, 3, verified(t, tor, s).Count())
			require.NoError(t, s.Close())
			break
		}
		writePiece(t, tor, s, content, 0)
		require.NoError(t, os.WriteFile(path, foreign, 0o666))
		require.NoError(t, s.SaveResume(set(3, 0), nil))
		writePiece(t, tor, s, content, 1)
		writePiece(t, tor, s, content, 2)
		require.NoError(t, s.SaveResume(bits.Full(3), nil))
		require.NoError(t, s.Finish())
		require.NoError(t, s.Close())
	}
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, foreign, b)
}

// guardedDisk does not allow file 1 to be opened with the flags.
type guardedDisk struct {
	storage.Disk
	denied func(flag int) bool
}

func (d guardedDisk) Open(name string, flag int) (storage.DiskFile, error) {
	if d.denied(flag) && filepath.Base(name) == "1" {
		if flag&os.O_EXCL != 0 {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrExist}
		}
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return d.Disk.Open(name, flag)
}

// A file that may not be written to keeps no piece of its neighbours from being stored, if nothing of it is to be written: it holds the
// bytes already, or it is not chosen and holds others.
func TestNeighboursOfAFileThatMayNotBeWritten(t *testing.T) {
	write := func(flag int) bool { return flag&os.O_RDWR != 0 }
	always := func(int) bool { return true }
	for name, c := range map[string]struct {
		denied        func(flag int) bool
		chosen, right bool
		stored        bool
	}{
		"whole, chosen":          {write, true, true, true},
		"whole, not chosen":      {write, false, true, true},
		"foreign, not chosen":    {write, false, false, true},
		"unreadable, not chosen": {always, false, true, true},
		"foreign, chosen":        {write, true, false, false},
		"unreadable, but chosen": {always, true, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			tor, content := testContent(50, 80, 40, 80)
			dir := t.TempDir()
			path := filepath.Join(dir, "d", "1")
			b := content[80:120]
			if !c.right {
				b = bytes.Repeat([]byte{'x'}, 40)
			}
			require.NoError(t, os.Mkdir(filepath.Dir(path), 0o777))
			require.NoError(t, os.WriteFile(path, b, 0o666))
			disk, err := storage.OpenRoot(dir)
			require.NoError(t, err)
			s, err := storage.OpenDisk(tor, guardedDisk{disk, c.denied}, dir, nil)
			require.NoError(t, err)
			require.NoError(t, s.SetWanted([]bool{true, c.chosen, true}))
			require.NoError(t, s.Settle(t.Context(), bits.New(4)))
			for i := range 4 {
				err = errors.Join(err, s.WriteBlocks([][]byte{pieceOf(tor, content, i)}, tor.PieceOffset(i)))
			}
			if c.stored {
				require.NoError(t, err)
				require.Equal(t, 4, verified(t, tor, s).Count())
			} else {
				require.ErrorIs(t, err, fs.ErrPermission)
			}
			require.NoError(t, s.Close())
			now, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, b, now)
		})
	}
}
