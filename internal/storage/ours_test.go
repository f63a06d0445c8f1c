package storage_test

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
)

// Unverified blocks do not get into a file that another program makes, or puts in the place of ours, while its pieces are under way.
// They are refused, and once the store has accepted the file they are kept apart until a piece of it is verified.
func TestUnverifiedBlocksStayOutOfFilesMadeMeanwhile(t *testing.T) {
	foreign := bytes.Repeat([]byte{'x'}, 100)
	replace := func(t *testing.T, path string) {
		require.NoError(t, os.WriteFile(path+".new", foreign, 0o666))
		require.NoError(t, os.Rename(path+".new", path))
	}
	for name, c := range map[string]struct {
		begin func(t *testing.T, tor storage.Content, s storage.Store, content []byte)
		made  func(t *testing.T, path string) // d/1, with the bytes 30 to 130
	}{
		"a piece was begun": {
			begin: func(t *testing.T, tor storage.Content, s storage.Store, content []byte) {
				_, err := s.WriteAt(content[:25], 0)
				require.NoError(t, err)
			},
			made: replace,
		},
		"our file is replaced": {
			begin: func(t *testing.T, tor storage.Content, s storage.Store, content []byte) {
				_, err := s.WriteAt(content[:40], 0)
				require.NoError(t, err)
			},
			made: replace,
		},
		"our file is replaced, and was verified": {
			begin: func(t *testing.T, tor storage.Content, s storage.Store, content []byte) {
				writePiece(t, tor, s, content, 2)
				_, err := s.WriteAt(content[:25], 0)
				require.NoError(t, err)
			},
			made: replace,
		},
		"our file is overwritten": {
			begin: func(t *testing.T, tor storage.Content, s storage.Store, content []byte) {
				_, err := s.WriteAt(content[:40], 0)
				require.NoError(t, err)
			},
			made: func(t *testing.T, path string) { require.NoError(t, os.WriteFile(path, foreign, 0o666)) },
		},
		"another's file is replaced": {
			begin: func(t *testing.T, tor storage.Content, s storage.Store, content []byte) {
				writePiece(t, tor, s, content, 2)
				replace(t, filepath.Join(tor.Name, "d", "1"))
				_, err := s.Refresh(2, bits.Full(3))
				require.NoError(t, err)
				require.NoError(t, os.Remove(filepath.Join(tor.Name, "d", "1")))
				_, err = s.Refresh(2, bits.Full(3))
				require.NoError(t, err)
				_, err = s.WriteAt(content[:25], 0)
				require.NoError(t, err)
			},
			made: replace,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if runtime.GOOS == "windows" {
				t.Skip("an open file cannot be replaced here")
			}
			tor, content := testContent(50, 30, 100)
			dir := t.TempDir()
			tor.Name = dir
			path := filepath.Join(dir, "d", "1")
			s := openDirectory(t, tor, dir)
			require.NoError(t, s.SetWanted(all(tor)))
			require.NoError(t, s.Settle(t.Context(), bits.New(3)))
			c.begin(t, tor, s, content)
			c.made(t, path)
			holds := func(want []byte) {
				t.Helper()
				b, err := os.ReadFile(path)
				require.NoError(t, err)
				require.Equal(t, want, b)
			}

			_, err := s.WriteAt(content[25:50], 25)
			require.ErrorIs(t, err, storage.ErrChanged)
			holds(foreign)
			_, err = s.WriteAt(content[50:60], 50)
			require.NoError(t, err, "of a piece of which nothing else is here")
			holds(foreign)

			doubted, err := s.Refresh(0, bits.Full(3))
			require.NoError(t, err)
			require.Equal(t, 3, doubted.Count())
			for off := int64(0); off < 50; off += 25 {
				_, err = s.WriteAt(content[off:off+25], off)
				require.NoError(t, err)
			}
			holds(foreign)
			got := make([]byte, 50)
			require.NoError(t, readFull(s, got, 0))
			require.Equal(t, content[:50], got)
			require.NoError(t, s.PieceVerified(0))
			holds(append(bytes.Clone(content[30:50]), foreign[20:]...))
			_, err = s.WriteAt(content[50:75], 50)
			require.NoError(t, err)
			holds(append(bytes.Clone(content[30:75]), foreign[45:]...))
			require.NoError(t, s.Close())
		})
	}
}

// A piece that is verified says nothing of a file that did not exist then.
func TestAFileThatIsNotHereIsNotOurs(t *testing.T) {
	for name, verify := range map[string]func(t *testing.T, tor storage.Content, s storage.Store, content []byte){
		"written": func(t *testing.T, tor storage.Content, s storage.Store, content []byte) {
			writePiece(t, tor, s, content, 0)
		},
		"found": func(t *testing.T, tor storage.Content, s storage.Store, content []byte) {
			require.NoError(t, s.Settle(t.Context(), set(3, 0)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			tor, content := testContent(50, 30, 100)
			dir := t.TempDir()
			foreign := bytes.Repeat([]byte{'x'}, 100)
			path := filepath.Join(dir, "d", "1")
			s := openDirectory(t, tor, dir)
			require.NoError(t, s.SetWanted([]bool{true, false}))
			verify(t, tor, s, content)
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
			require.NoError(t, os.WriteFile(path, foreign, 0o666))
			require.NoError(t, s.SetWanted(all(tor)))
			require.NoError(t, s.Settle(t.Context(), bits.New(3)))
			_, err := s.WriteAt(content[50:75], 50)
			require.NoError(t, err)
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, foreign, b)
			got := make([]byte, 25)
			require.NoError(t, readFull(s, got, 50))
			require.Equal(t, content[50:75], got)
			require.NoError(t, s.Close())
		})
	}
}

// A file that another program put in the place of ours is not truncated at the end, nor renamed or moved, before it was hashed.
func TestWhatReplacesOursIsLeftAlone(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("an open file cannot be replaced here")
	}
	long := bytes.Repeat([]byte{'x'}, 120)
	replace := func(t *testing.T, path string) {
		require.NoError(t, os.WriteFile(path+".new", long, 0o666))
		require.NoError(t, os.Rename(path+".new", path))
	}
	holds := func(t *testing.T, path string) {
		t.Helper()
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, long, b)
	}
	t.Run("Finish", func(t *testing.T) {
		tor, content := testContent(50, 100)
		dir := t.TempDir()
		path := filepath.Join(dir, "d", "0")
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
		require.NoError(t, os.WriteFile(path, make([]byte, 150), 0o666))
		s := openDirectory(t, tor, dir)
		require.NoError(t, s.SetWanted(all(tor)))
		writePiece(t, tor, s, content, 0)
		writePiece(t, tor, s, content, 1)
		replace(t, path)
		require.NoError(t, s.Finish())
		holds(t, path)
		require.ErrorIs(t, s.Changed(0), storage.ErrChanged)
		require.NoError(t, s.Close())
	})
	t.Run("Settle", func(t *testing.T) {
		tor, content := testContent(50, 100)
		dir := t.TempDir()
		path := filepath.Join(dir, "d", "0.part")
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
		require.NoError(t, os.WriteFile(path, content, 0o666))
		s := openDirectory(t, tor, dir)
		require.NoError(t, s.SetWanted(all(tor)))
		replace(t, path)
		require.NoError(t, s.Settle(t.Context(), set(2, 0, 1)))
		holds(t, path)
		require.ErrorIs(t, s.Changed(0), storage.ErrChanged)
		require.NoError(t, s.Close())
	})
	t.Run("Move", func(t *testing.T) {
		tor, content := testContent(50, 100, 100)
		dir, to := t.TempDir(), t.TempDir()
		path := filepath.Join(dir, "d", "0")
		s := openDirectory(t, tor, dir)
		require.NoError(t, s.SetWanted(all(tor)))
		download(t, tor, s, content)
		replace(t, path)
		claims := func() (bits.Set, map[int]bits.Set) { return set(4, 0, 2), map[int]bits.Set{1: set(1, 0)} }
		require.NoError(t, s.Move(t.Context(), to, claims, func(int64, int64) {}))
		holds(t, path)
		require.ErrorIs(t, s.Changed(0), storage.ErrChanged)
		require.NoError(t, s.Close())
		s = openDirectory(t, tor, to)
		require.NoError(t, s.SetWanted(all(tor)))
		have, partial := s.LoadResume()
		require.Equal(t, []int{2}, pieces(have))
		require.Empty(t, partial)
		require.Equal(t, []int{2, 3}, pieces(verified(t, tor, s)))
		writePiece(t, tor, s, content, 0)
		writePiece(t, tor, s, content, 1)
		require.Equal(t, 4, verified(t, tor, s).Count())
		require.NoError(t, s.Close())
		holds(t, path)
	})
}

// A file that is not chosen any more, and that another program has replaced, is not written to when the piece at its edge is fetched
// again, but that is here. Before that its pieces come into doubt. If another one of them is still right, the file is ours.
func TestFilesThatAreNotChosenAnyMoreAreSpared(t *testing.T) {
	tor, content := testContent(50, 70, 130)
	foreign := bytes.Repeat([]byte{'x'}, 130)
	begin := func(t *testing.T) (s storage.Store, path string, holds func([]byte)) {
		dir := t.TempDir()
		path = filepath.Join(dir, "d", "1")
		s = openDirectory(t, tor, dir)
		require.NoError(t, s.SetWanted(all(tor)))
		require.NoError(t, s.Settle(t.Context(), bits.New(4)))
		download(t, tor, s, content)
		require.NoError(t, s.SetWanted([]bool{true, false}))
		require.NoError(t, s.Settle(t.Context(), bits.Full(4)))
		return s, path, func(want []byte) {
			t.Helper()
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, want, b)
		}
	}
	rest := content[70:]
	write := func(s storage.Store) error { return s.WriteBlocks([][]byte{content[50:100]}, 50) }
	t.Run("another file", func(t *testing.T) {
		s, path, holds := begin(t)
		require.NoError(t, os.WriteFile(path, foreign, 0o666))
		require.NoError(t, os.Chtimes(path, time.Time{}, time.Unix(1e9, 0)))
		require.ErrorIs(t, write(s), storage.ErrChanged)
		holds(foreign)
		require.ErrorIs(t, s.Changed(3), storage.ErrChanged, "which was verified there")
		_, err := s.Refresh(1, bits.Full(4))
		require.NoError(t, err)
		require.NoError(t, write(s))
		holds(foreign)
		got := make([]byte, 50)
		require.NoError(t, s.Changed(1))
		require.NoError(t, readFull(s, got, 50))
		require.Equal(t, content[50:100], got)
		require.True(t, storage.Unwritten(readFull(s, got, 150)))

		require.NoError(t, s.SetWanted(all(tor)))
		require.ErrorIs(t, s.ChangedFile(1), storage.ErrChanged)
		require.NoError(t, s.Close())
	})
	t.Run("a part of it", func(t *testing.T) {
		s, path, holds := begin(t)
		spoiled := append(bytes.Clone(foreign[:30]), rest[30:]...)
		require.NoError(t, os.WriteFile(path, spoiled, 0o666))
		require.NoError(t, os.Chtimes(path, time.Time{}, time.Unix(1e9, 0)))
		_, err := s.Refresh(1, bits.Full(4))
		require.NoError(t, err)
		require.NoError(t, s.PieceVerified(3))
		require.NoError(t, write(s))
		holds(rest)
		require.NoError(t, s.Close())
	})
	t.Run("none", func(t *testing.T) {
		s, path, holds := begin(t)
		require.NoError(t, os.Remove(path))
		_, err := s.Refresh(1, bits.Full(4))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, foreign, 0o666))
		require.ErrorIs(t, write(s), storage.ErrChanged)
		_, err = s.Refresh(1, bits.Full(4))
		require.NoError(t, err)
		require.NoError(t, write(s))
		holds(foreign)
		require.NoError(t, s.Close())
	})
}

// Bytes that another program appends to a file after all of it was there are kept, whether the rest of the content is there or not, and
// in the same run as in the next.
func TestWhatIsAppendedToAWholeFileIsKept(t *testing.T) {
	for _, again := range []bool{false, true} {
		tor, content := testContent(50, 100, 100)
		dir := t.TempDir()
		s := openDirectory(t, tor, dir)
		require.NoError(t, s.SetWanted(all(tor)))
		writePiece(t, tor, s, content, 0)
		writePiece(t, tor, s, content, 1)
		writePiece(t, tor, s, content, 2)
		if again {
			require.NoError(t, s.SaveResume(set(4, 0, 1, 2), nil))
			require.NoError(t, s.Close())
		}
		long := append(content[:100:100], "more"...)
		for range 2 {
			require.NoError(t, os.WriteFile(dir+"/d/0", long, 0o666))
			if again {
				s = openDirectory(t, tor, dir)
				require.NoError(t, s.SetWanted(all(tor)))
				require.Contains(t, pieces(verified(t, tor, s)), 1)
			} else {
				_, err := s.Refresh(0, set(4, 0, 1))
				require.NoError(t, err)
			}
			writePiece(t, tor, s, content, 3)
			require.NoError(t, s.Settle(t.Context(), bits.Full(4)))
			require.NoError(t, s.Finish())
			require.NoError(t, s.Keep(bits.Full(4), nil))
			b, err := os.ReadFile(dir + "/d/0")
			require.NoError(t, err)
			require.Equal(t, string(long), string(b))
			if again {
				require.NoError(t, s.Close())
			}
			long = append(long, "!"...)
		}
		if !again {
			require.NoError(t, s.Close())
		}
	}
}
