package storage_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/storage/disktest"
)

// Unverified blocks do not get into a file that may be another program's. They are found again where they are, and get there with
// the first piece that is verified.
func TestUnverifiedBlocksStayOutOfForeignFiles(t *testing.T) {
	tor, content := testContent(50, 120, 30)
	dir := t.TempDir()
	foreign := bytes.Repeat([]byte{'x'}, 120)
	path := filepath.Join(dir, "d", "0")
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
	require.NoError(t, os.WriteFile(path, foreign, 0o666))
	open := func() storage.Store {
		s := openDirectory(t, tor, dir)
		require.NoError(t, s.SetWanted(all(tor)))
		s.LoadResume()
		require.NoError(t, s.Settle(t.Context(), bits.New(3)))
		return s
	}
	holds := func(want []byte) {
		t.Helper()
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, want, b)
	}
	s := open()
	for off := 0; off < 150; off += 25 {
		_, err := s.WriteAt(content[off:off+25], int64(off))
		require.NoError(t, err)
	}
	holds(foreign)
	got := make([]byte, 150)
	require.NoError(t, readFull(s, got, 0))
	require.Equal(t, content, got)
	half := bits.New(50)
	half.Add(0)
	require.NoError(t, s.SaveResume(bits.New(3), map[int]bits.Set{0: half}))
	require.NoError(t, s.Close())
	holds(foreign)

	s = open()
	_, partial := s.LoadResume()
	require.Empty(t, partial)
	_, err := s.WriteAt(content[50:100], 50)
	require.NoError(t, err)
	_, err = s.WriteAt(make([]byte, 25), 0)
	require.NoError(t, err)
	require.NoError(t, s.PieceVerified(1))
	holds(append(append(bytes.Clone(foreign[:50]), content[50:100]...), foreign[100:]...))
	require.NoError(t, readFull(s, got[:100], 0))
	require.Equal(t, make([]byte, 25), got[:25], "of a piece that is not verified")
	writePiece(t, tor, s, content, 0)
	writePiece(t, tor, s, content, 2)
	require.NoError(t, readFull(s, got, 0))
	require.Equal(t, content, got)
	holds(content[:120])
	require.NoError(t, s.Finish())
	require.NoError(t, s.Close())
	require.Equal(t, []string{"d/0", "d/1"}, listing(t, dir))
}

// A file of which a piece was found, or that an earlier run began, takes unverified blocks.
func TestUnverifiedBlocksGetIntoOwnFiles(t *testing.T) {
	tor, content := testContent(50, 150)
	dir := t.TempDir()
	fill(t, tor, dir, append(bytes.Clone(content[:50]), make([]byte, 100)...))
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	s.LoadResume()
	require.NoError(t, s.Settle(t.Context(), set(3, 0)))
	_, err := s.WriteAt(content[50:100], 50)
	require.NoError(t, err)
	b, err := os.ReadFile(filepath.Join(dir, "d", "0"))
	require.NoError(t, err)
	require.Equal(t, content[:100], b[:100])
}

// A sidecar that a move writes does not claim blocks that are not in their file.
func TestAMoveClaimsNoUnverifiedBlocksOfForeignFiles(t *testing.T) {
	const blockLen = layout.BlockSize
	tor, content := testContent(2*blockLen, 4*blockLen)
	dir, to := t.TempDir(), t.TempDir()
	path := filepath.Join("d", "0")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "d"), 0o777))
	require.NoError(t, os.WriteFile(filepath.Join(dir, path), bytes.Repeat([]byte{'x'}, 4*blockLen), 0o666))
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	_, err := s.WriteAt(content[:blockLen], 0)
	require.NoError(t, err)
	half := bits.New(2)
	half.Add(0)
	claims := func() (bits.Set, map[int]bits.Set) { return bits.New(2), map[int]bits.Set{0: half} }
	require.NoError(t, s.Move(t.Context(), to, claims, func(int64, int64) {}))
	got := make([]byte, blockLen)
	require.NoError(t, readFull(s, got, 0))
	require.Equal(t, content[:blockLen], got)
	require.NoError(t, s.Close())

	s = openDirectory(t, tor, to)
	_, partial := s.LoadResume()
	require.Empty(t, partial)
	require.NoError(t, s.Close())
}

// Blocks of one piece that are written at once go to the same place, even if the file of another program disappears meanwhile.
func TestBlocksOfAPieceStayTogether(t *testing.T) {
	tor, content := testContent(50, 100)
	d := disktest.New()
	require.NoError(t, d.MkdirAll("d"))
	name := filepath.FromSlash("d/0")
	f, err := d.Open(name, os.O_RDWR|os.O_CREATE)
	require.NoError(t, err)
	_, err = f.WriteAt(bytes.Repeat([]byte{'x'}, 100), 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	s := openForgetful(t, tor, d)
	require.NoError(t, s.SetWanted(all(tor)))
	d.Fail = func(call, of string) error {
		if call != "stat" || of != name {
			return nil
		}
		d.Fail = nil
		_, err := s.WriteAt(content[:25], 0)
		require.NoError(t, err)
		return fs.ErrNotExist
	}
	_, err = s.WriteAt(content[25:50], 25)
	require.NoError(t, err)
	got := make([]byte, 50)
	require.NoError(t, readFull(s, got, 0))
	require.Equal(t, content[:50], got)
	require.NoError(t, s.Close())
}

// A choice may change while a draft is under way, and come back once what was left of it is complete.
func TestADraftOutlivesTheEndOfAChoice(t *testing.T) {
	tor, content := testContent(50, 100, 100)
	dir := t.TempDir()
	path := filepath.Join(dir, "d", "1")
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
	require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte{'x'}, 100), 0o666))
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	_, err := s.WriteAt(content[100:125], 100)
	require.NoError(t, err)
	require.NoError(t, s.SetWanted([]bool{true, false}))
	writePiece(t, tor, s, content, 0)
	writePiece(t, tor, s, content, 1)
	require.NoError(t, s.Finish())
	require.NoError(t, s.SetWanted(all(tor)))
	_, err = s.WriteAt(content[125:150], 125)
	require.NoError(t, err)
	got := make([]byte, 50)
	require.NoError(t, readFull(s, got, 100))
	require.Equal(t, content[100:150], got)
	require.NoError(t, s.PieceVerified(2))
	writePiece(t, tor, s, content, 3)
	require.NoError(t, s.Finish())
	require.NoError(t, s.Close())
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, content[100:], b)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing is left beside the content")
}

// Once the user has put the right file in the place of another one, its pieces are read from there, and not from the edges.
func TestAFileThatIsAcceptedIsRead(t *testing.T) {
	tor, content := testContent(50, 100)
	dir := t.TempDir()
	path := filepath.Join(dir, "d", "0")
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
	require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte{'x'}, 99), 0o666))
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	_, err := s.WriteAt(make([]byte, 25), 0)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, content, 0o666))
	which, err := s.Refresh(0, set(2, 0, 1))
	require.NoError(t, err)
	require.Equal(t, 2, which.Count())
	got := make([]byte, 100)
	require.NoError(t, readFull(s, got, 0))
	require.Equal(t, content, got)
	require.NoError(t, s.Close())
}

// A file that was not made yet, though blocks of a piece of it were written, may still become the user's.
func TestAFileIsOursOnceItIsMade(t *testing.T) {
	tor, content := testContent(50, 30, 100)
	dir := t.TempDir()
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	_, err := s.WriteAt(content[:25], 0)
	require.NoError(t, err)
	foreign := bytes.Repeat([]byte{'x'}, 100)
	path := filepath.Join(dir, "d", "1")
	require.NoError(t, os.WriteFile(path, foreign, 0o666))
	_, err = s.WriteAt(content[50:75], 50)
	require.NoError(t, err)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, foreign, b)
	require.NoError(t, s.Close())
}

// Unverified blocks are not copied to a file that is chosen, which may have become another program's.
func TestAChoiceCopiesNoDraft(t *testing.T) {
	tor, content := testContent(100, 50, 100)
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "d"), 0o777))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "d", "0"), []byte("mine"), 0o666))
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted([]bool{true, false}))
	_, err := s.WriteAt(content[:75], 0)
	require.NoError(t, err)
	path := filepath.Join(dir, "d", "1")
	require.NoError(t, os.WriteFile(path, []byte("mine, too"), 0o666))
	require.NoError(t, s.SetWanted(all(tor)))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "mine, too", string(b))
	_, err = s.WriteAt(content[75:100], 75)
	require.NoError(t, err)
	require.NoError(t, s.PieceVerified(0))
	got := make([]byte, 100)
	require.NoError(t, readFull(s, got, 0))
	require.Equal(t, content[:100], got)
	require.NoError(t, s.Close())
}

// Another program that goes on writing to its file does not spoil a draft, so that whoever sent a false one can be found.
func TestADraftIsNotChangedThroughItsFile(t *testing.T) {
	tor, content := testContent(50, 100)
	dir := t.TempDir()
	path := filepath.Join(dir, "d", "0")
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
	require.NoError(t, os.WriteFile(path, []byte("mine"), 0o666))
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	_, err := s.WriteAt(content[:50], 0)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, []byte("mine as well"), 0o666))
	require.NoError(t, s.Changed(0))
	require.ErrorIs(t, s.Changed(1), storage.ErrChanged)
	require.NoError(t, os.Truncate(filepath.Join(dir, ".0102030000000000000000000000000000000000.edges.resume"), 3))
	require.ErrorIs(t, s.Changed(0), storage.ErrChanged)
	require.NoError(t, s.Close())
}

// While blocks of a piece are kept out of another program's file, what lies across the padding of a torrent of version 2, which is of
// no piece, is read as always.
func TestReadsAcrossPaddingBesideUnverifiedBlocks(t *testing.T) {
	tor, _ := testContent(50, 30)
	tor.Layout = layout.NewAligned(50,
		layout.File{Path: "d/0", Length: 30},
		layout.File{Path: "d/.pad/20", Length: 20, Pad: true},
		layout.File{Path: "d/1", Length: 60},
		layout.File{Path: "d/.pad/40", Length: 40, Pad: true},
		layout.File{Path: "d/2", Length: 10})
	content := bytes.Repeat([]byte("abcdefghij"), 16)
	clear(content[30:50])
	clear(content[110:150])
	dir := t.TempDir()
	path := filepath.Join(dir, "d", "0")
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
	require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte{'x'}, 30), 0o666))
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	require.NoError(t, s.WriteBlocks([][]byte{content[50:100]}, 50))
	require.NoError(t, s.WriteBlocks([][]byte{content[100:110]}, 100))
	require.NoError(t, s.WriteBlocks([][]byte{content[150:]}, 150))
	_, err := s.WriteAt(content[:30], 0)
	require.NoError(t, err)
	for from := range content {
		got := make([]byte, len(content)-from)
		require.NoError(t, readFull(s, got, int64(from)))
		require.Equal(t, content[from:], got)
	}
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, bytes.Repeat([]byte{'x'}, 30), b)
}
