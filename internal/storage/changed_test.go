package storage_test

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/storage/disktest"
)

func TestChangesByOtherProgramsAreFound(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("an open file cannot be removed here")
	}
	past := time.Now().Add(-time.Hour)
	for _, c := range []struct {
		name string
		do   func(path string) error // the path of the file with pieces 1 to 4
	}{
		{"truncated", func(path string) error { return os.Truncate(path, 7) }},
		{"overwritten", func(path string) error {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			if _, err := f.WriteAt([]byte("other"), 60); err != nil {
				return err
			}
			// As if some time had passed since the store's write.
			return cmpErr(f.Close(), os.Chtimes(path, past, past))
		}},
		{"removed", os.Remove},
		{"replaced", func(path string) error {
			if err := os.WriteFile(path+".new", []byte("short"), 0o666); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		}},
		{"moved away", func(path string) error { return os.Rename(path, path+".old") }},
		{"directory removed", func(path string) error { return os.RemoveAll(filepath.Dir(path)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			tor, content := testContent(50, 50, 200)
			dir := t.TempDir()
			s := openDirectory(t, tor, dir)
			require.NoError(t, s.SetWanted(all(tor)))
			for i := range 5 {
				writePiece(t, tor, s, content, i)
				require.NoError(t, s.Changed(i))
			}
			require.NoError(t, c.do(dir+"/d/1"))
			for i := 1; i < 5; i++ {
				require.ErrorIs(t, s.Changed(i), storage.ErrChanged)
			}
			require.ErrorIs(t, s.ChangedFile(1), storage.ErrChanged)
			piece, err := s.AnyChanged(t.Context(), set(5, 2, 4))
			require.Equal(t, 2, piece)
			require.ErrorIs(t, err, storage.ErrChanged)
			_, _, err = s.Bytes(1)
			require.ErrorIs(t, err, storage.ErrChanged)
			require.ErrorContains(t, err, dir+"/d/1")

			doubt, err := s.Refresh(2, set(5, 1, 2, 3))
			require.NoError(t, err)
			require.Equal(t, []int{1, 2, 3, 4}, slices.Collect(doubt.All()), "the pieces of this file")
			require.ErrorIs(t, s.Changed(3), storage.ErrChanged, "one of them is not in doubt yet")
			_, err = s.Refresh(2, doubt)
			require.NoError(t, err)
			require.NoError(t, s.Changed(3))
			if s.Changed(0) != nil { // whose file was in the same directory
				_, err := s.Refresh(0, bits.Full(5))
				require.NoError(t, err)
			}

			have := verified(t, tor, s)
			for i := range 5 {
				if !have.Has(i) {
					writePiece(t, tor, s, content, i)
				}
			}
			require.Equal(t, 5, verified(t, tor, s).Count())
			piece, err = s.AnyChanged(t.Context(), bits.Full(5))
			require.Equal(t, -1, piece)
			require.NoError(t, err)
			again, err := storage.VerifyDir(t.Context(), tor, dir)
			require.NoError(t, err)
			require.Equal(t, again.Len(), again.Count(), "what was fetched again is under the file's name")
		})
	}
}

func cmpErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// A write must not hide that the file was changed before it.
func TestAWriteDoesNotHideAnEarlierChange(t *testing.T) {
	for name, do := range map[string]func(string) error{
		"truncated": func(path string) error { return os.Truncate(path, 7) },
		"removed":   os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			tor, content := testContent(50, 200)
			dir := t.TempDir()
			s := openDirectory(t, tor, dir)
			require.NoError(t, s.SetWanted(all(tor)))
			writePiece(t, tor, s, content, 0)
			writePiece(t, tor, s, content, 1)
			require.NoError(t, do(dir+"/d/0"))
			writePiece(t, tor, s, content, 3)
			require.ErrorIs(t, s.Changed(0), storage.ErrChanged)

			have := bits.New(4)
			have.Add(0)
			have.Add(3)
			require.NoError(t, s.SaveResume(have, nil))
			require.NoError(t, s.Close())
			s = openDirectory(t, tor, dir)
			got, _ := s.LoadResume()
			require.Zero(t, got.Count(), "no claim is made of a file that was changed")
		})
	}
}

func TestARemovedDirectoryIsAnError(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("an open directory cannot be removed here")
	}
	tor, content := testContent(50, 200)
	dir := filepath.Join(t.TempDir(), "gone")
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	writePiece(t, tor, s, content, 0)
	require.NoError(t, os.RemoveAll(dir))
	require.ErrorIs(t, s.Changed(0), storage.ErrChanged)
	err := s.WriteBlocks([][]byte{content[50:100]}, 50)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, dir)
	require.NoError(t, s.Close())
}

// A file that another program removes, makes again and removes again is not read any more, although it was opened in between.
func TestAFileThatIsRemovedTwice(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("an open file cannot be removed here")
	}
	tor, content := testContent(50, 100)
	dir := t.TempDir()
	path := filepath.Join(dir, "d", "0")
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	writePiece(t, tor, s, content, 0)
	writePiece(t, tor, s, content, 1)
	require.NoError(t, os.Remove(path))
	_, err := s.Refresh(0, set(2, 0, 1))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, content, 0o666))
	require.Equal(t, 2, verified(t, tor, s).Count())
	require.NoError(t, os.Remove(path))
	_, err = s.AnyChanged(t.Context(), set(2, 0, 1))
	require.ErrorIs(t, err, storage.ErrChanged)
	_, err = s.Refresh(0, set(2, 0, 1))
	require.NoError(t, err)
	require.Zero(t, verified(t, tor, s).Count())
	require.NoError(t, s.Close())
}

// What is read of one file of a piece has no other file of it looked at: there may be a million.
func TestOnlyFilesThatAreReadAreLookedAt(t *testing.T) {
	tor, content := testContent(50, 20, 20, 60)
	dir := t.TempDir()
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	download(t, tor, s, content)
	require.NoError(t, os.Chtimes(filepath.Join(dir, "d", "0"), time.Time{}, time.Unix(1e9, 0)))
	require.ErrorIs(t, s.Changed(0), storage.ErrChanged)
	require.ErrorIs(t, s.ChangedAt(19, 31), storage.ErrChanged)
	require.NoError(t, s.ChangedAt(20, 30))
	require.NoError(t, s.Changed(1))
}

// A context ends the looks at very many files in between, and their hashing.
func TestContextEndsLooksAtManyFiles(t *testing.T) {
	const n = 5000
	tor, content := testContent(n, slices.Repeat([]int64{1}, n)...)
	d := disktest.New()
	s := openForgetful(t, tor, d)
	require.NoError(t, s.SetWanted(all(tor)))
	writePiece(t, tor, s, content, 0)
	require.NoError(t, s.PieceVerified(0))
	require.NoError(t, s.Close())
	s = openForgetful(t, tor, d)
	require.NoError(t, s.SetWanted(all(tor)))

	calls := 0
	until := func(call string) context.Context {
		ctx, cancel := context.WithCancel(t.Context())
		calls = 0
		d.Fail = func(at, _ string) error {
			if at == call {
				if calls++; calls == 10 {
					cancel()
				}
			}
			return nil
		}
		return ctx
	}
	piece, err := s.AnyChanged(until("stat"), set(1, 0))
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, -1, piece)
	require.Equal(t, 10, calls)
	require.Zero(t, s.Present(until("stat")).Count())
	require.Equal(t, 10, calls)
	err = storage.Verify(until("open"), tor, s, set(1, 0), func(int, bool) {})
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, calls, 2000)
	d.Fail = nil
	require.Equal(t, 1, verified(t, tor, s).Count())
	require.NoError(t, s.Close())
}
