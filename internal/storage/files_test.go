package storage_test

import (
	"bytes"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
)

// fill writes all pieces to dir.
func fill(t *testing.T, tor storage.Content, dir string, content []byte) {
	t.Helper()
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	require.NoError(t, s.Settle(t.Context(), bits.New(tor.NumPieces())))
	for i := range tor.NumPieces() {
		writePiece(t, tor, s, content, i)
	}
	require.NoError(t, s.Finish())
	require.NoError(t, s.Close())
}

func TestFilesHoldExactlyTheContent(t *testing.T) {
	tor, content := testContent(50, 10, 0, 130, -20, 1, 0, 77)
	dir := filepath.Join(t.TempDir(), "made", "on", "the way")
	fill(t, tor, dir, content)
	require.Equal(t, []string{"d/0", "d/1", "d/2", "d/4", "d/5", "d/6"}, listing(t, dir),
		"padding is not stored, empty files are, and no sidecar stays")
	for _, f := range tor.Files() {
		if !f.Pad {
			b, err := os.ReadFile(filepath.Join(dir, f.Path))
			require.NoError(t, err)
			require.Equal(t, content[f.Offset:f.End()], b)
		}
	}
}

func TestFilesAreSparse(t *testing.T) {
	tor, content := testContent(1<<20, 64<<20)
	s := openDirectory(t, tor, t.TempDir())
	require.NoError(t, s.SetWanted(all(tor)))
	if runtime.GOOS == "windows" || runtime.GOOS == "plan9" {
		t.Skip("holes are not known on this system")
	}
	writePiece(t, tor, s, content, 40)
	require.Equal(t, []int{40}, slices.Collect(s.Present(t.Context()).All()),
		"what comes before is a hole, what comes after is not there")
}

func TestPresent(t *testing.T) {
	const pieceLength = 64 << 10
	tor, content := testContent(pieceLength, 3*pieceLength, 3*pieceLength)
	clear(content[pieceLength : 2*pieceLength]) // a piece that should hold zeros
	tor = contentOf(tor.Layout, content)

	for _, c := range []struct {
		name string
		make func(t *testing.T, dir string)
		want []int
	}{
		{"nothing", func(*testing.T, string) {}, nil},
		{"one file is missing", func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(dir+"/d/0", content[:3*pieceLength], 0o666))
		}, []int{0, 1, 2}},
		{"one is short", func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(dir+"/d/0", content[:3*pieceLength-1], 0o666))
		}, []int{0, 1}},
		{"one is too long", func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(dir+"/d/1", make([]byte, 5*pieceLength), 0o666))
		}, []int{3, 4, 5}},
		{"one is a single hole", func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(dir+"/d/0", nil, 0o666))
			require.NoError(t, os.Truncate(dir+"/d/0", 3*pieceLength))
			if runtime.GOOS != "linux" {
				t.Skip("holes may not be visible on this system")
			}
		}, []int{1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.Mkdir(dir+"/d", 0o777))
			c.make(t, dir)
			s := openDirectory(t, tor, dir)
			require.NoError(t, s.SetWanted(all(tor)))
			require.Equal(t, c.want, slices.Collect(s.Present(t.Context()).All()))
		})
	}
}

// Transmission appends ".part" to the names of files that it did not complete.
func TestPartFilesAreTakenOver(t *testing.T) {
	tor, content := testContent(50, 200, 100, 70)
	dir := t.TempDir()
	fill(t, tor, dir, content)
	require.NoError(t, os.Rename(dir+"/d/0", dir+"/d/0.part"))
	require.NoError(t, os.Truncate(dir+"/d/0.part", 120))
	require.NoError(t, os.Rename(dir+"/d/1", dir+"/d/1.part"))
	require.NoError(t, os.WriteFile(dir+"/d/2.part", content[:70], 0o644)) // a file of another torrent
	have, err := storage.VerifyDir(t.Context(), tor, dir)
	require.NoError(t, err)
	require.Equal(t, []int{0, 1, 4, 5, 6, 7}, pieces(have))

	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	require.Equal(t, []int{0, 1, 4, 5, 6, 7}, pieces(verified(t, tor, s)))
	require.Equal(t, []string{"d/0.part", "d/1.part", "d/2", "d/2.part"}, visible(listing(t, dir)), "nothing is renamed before it is seen to be ours")
	require.NoError(t, s.Settle(t.Context(), set(8, 0, 1, 4, 5, 6, 7)))
	require.Equal(t, []string{"d/0", "d/1", "d/2", "d/2.part"}, visible(listing(t, dir)))
	writePiece(t, tor, s, content, 2)
	writePiece(t, tor, s, content, 3)
	require.NoError(t, s.Finish())
	require.Equal(t, bits.Full(8), verified(t, tor, s))
	require.NoError(t, s.Close())
	require.Equal(t, []string{"d/0", "d/1", "d/2", "d/2.part"}, listing(t, dir))

	require.NoError(t, os.Rename(dir+"/d/0", dir+"/d/0.part"))
	require.NoError(t, os.WriteFile(dir+"/d/0.part", make([]byte, 201), 0o644))
	s = openDirectory(t, tor, dir)
	require.NotContains(t, pieces(s.Present(t.Context())), 0, "too long to be a part")
}

// A file that is longer than the torrent says keeps the bytes past its length, unless a piece is written into it.
func TestTooLongIsCutOnlyIfWritten(t *testing.T) {
	tor, content := testContent(50, 120, 30)
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(dir+"/d", 0o777))
	long := append(content[:120:120], "more"...)
	require.NoError(t, os.WriteFile(dir+"/d/0", long, 0o666))
	require.NoError(t, os.WriteFile(dir+"/d/1", content[120:], 0o666))
	have, err := storage.VerifyDir(t.Context(), tor, dir)
	require.NoError(t, err)
	require.Equal(t, have.Len(), have.Count())
	var log bytes.Buffer
	s, err := storage.OpenFiles(tor, dir, slog.New(slog.NewTextHandler(&log, nil)))
	require.NoError(t, err)
	require.Contains(t, log.String(), "longer")
	require.Contains(t, log.String(), filepath.Join(dir, "d", "0"))
	require.NoError(t, s.SetWanted(all(tor)))
	require.Equal(t, 3, verified(t, tor, s).Count())
	require.NoError(t, s.Settle(t.Context(), have))
	require.NoError(t, s.Finish())
	require.Equal(t, []string{"d/0", "d/1"}, listing(t, dir))
	b, err := os.ReadFile(dir + "/d/0")
	require.NoError(t, err)
	require.Equal(t, long, b)
	require.NoError(t, s.Changed(0))
	b, release, err := s.Bytes(0)
	require.NoError(t, err)
	require.Equal(t, content[:120], b)
	require.NoError(t, release())

	writePiece(t, tor, s, content, 1)
	b, err = os.ReadFile(dir + "/d/0")
	require.NoError(t, err)
	require.Equal(t, long, b, "not before all of it is verified")
	require.NoError(t, s.Finish())
	b, err = os.ReadFile(dir + "/d/0")
	require.NoError(t, err)
	require.Equal(t, content[:120], b)
	require.NoError(t, s.Changed(0))
	require.NoError(t, s.Close())
}

// Bytes that another program appends to a file, or writes to one that should be empty, after the content was complete are kept.
func TestTooLongSinceTheLastRunIsKept(t *testing.T) {
	tor, content := testContent(50, 120, 0, 30)
	dir := t.TempDir()
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	for piece := range tor.NumPieces() {
		writePiece(t, tor, s, content, piece)
	}
	have := bits.Full(tor.NumPieces())
	require.NoError(t, s.Settle(t.Context(), have))
	require.NoError(t, s.Keep(have, nil))
	require.NoError(t, s.Close())
	long := append(content[:120:120], "more"...)
	require.NoError(t, os.WriteFile(dir+"/d/0", long, 0o666))
	require.NoError(t, os.WriteFile(dir+"/d/1", []byte("notes"), 0o666))

	s = openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	require.Equal(t, tor.NumPieces(), verified(t, tor, s).Count())
	require.NoError(t, s.Settle(t.Context(), have))
	require.NoError(t, s.Keep(have, nil))
	require.NoError(t, s.Finish())
	require.NoError(t, s.Close())
	for name, want := range map[string]string{"d/0": string(long), "d/1": "notes"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, want, string(b))
	}
}

// A file with other hard links is replaced with a copy before it is truncated.
func TestTooLongIsCutUnderItsOwnNameAlone(t *testing.T) {
	tor, content := testContent(50, 100, 50)
	dir, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "elsewhere")
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	writePiece(t, tor, s, content, 0)
	writePiece(t, tor, s, content, 1)
	require.NoError(t, s.SaveResume(set(3, 0), nil))
	require.NoError(t, s.Close())
	require.NoError(t, os.Link(dir+"/d/0", elsewhere))
	long := append(content[:100:100], "more"...)
	require.NoError(t, os.WriteFile(elsewhere, long, 0o666))

	s = openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	writePiece(t, tor, s, content, 2)
	require.NoError(t, s.Finish())
	require.NoError(t, s.Changed(0))
	require.NoError(t, s.Close())
	for name, want := range map[string][]byte{dir + "/d/0": content[:100], elsewhere: long} {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		require.Equal(t, want, b, name)
	}
}

// A file of another program with the name of an incomplete file of Transmission's is left alone.
func TestPartFilesOfOthersAreLeftAlone(t *testing.T) {
	tor, content := testContent(50, 120, 30)
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(dir+"/d", 0o777))
	theirs := []byte("not a piece of it is right")
	require.NoError(t, os.WriteFile(dir+"/d/0.part", theirs, 0o666))
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	have := verified(t, tor, s)
	require.Zero(t, have.Count())
	require.NoError(t, s.Settle(t.Context(), have))
	for i := range tor.NumPieces() {
		writePiece(t, tor, s, content, i)
	}
	require.NoError(t, s.Finish())
	require.Equal(t, []string{"d/0", "d/0.part", "d/1"}, listing(t, dir))
	b, err := os.ReadFile(dir + "/d/0.part")
	require.NoError(t, err)
	require.Equal(t, theirs, b)
	require.Equal(t, 3, verified(t, tor, s).Count())
}

// visible leaves out the sidecar, the edges and the lock file.
func visible(names []string) []string {
	return slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, ".") })
}

func TestVerify(t *testing.T) {
	tor, content := testContent(50, 120, 130)
	dir := t.TempDir()
	_, err := storage.VerifyDir(t.Context(), tor, filepath.Join(dir, "not there"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	have, err := storage.VerifyDir(t.Context(), tor, dir)
	require.NoError(t, err)
	require.Zero(t, have.Count())
	require.Empty(t, listing(t, dir), "verifying leaves nothing behind")

	fill(t, tor, dir, content)
	f, err := os.OpenFile(dir+"/d/1", os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("wrong"), 0) // piece 2 begins 20 bytes before
	require.NoError(t, err)
	require.NoError(t, f.Close())
	have, err = storage.VerifyDir(t.Context(), tor, dir)
	require.NoError(t, err)
	require.Equal(t, []int{0, 1, 3, 4}, pieces(have))
}

func TestOpenHandlesAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 10,000 files")
	}
	tor, content := testContent(1000, slices.Repeat([]int64{100}, 10_000)...)
	dir := t.TempDir()
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := w; i < tor.NumPieces(); i += 4 {
				if err := s.WriteBlocks([][]byte{pieceOf(tor, content, i)}, int64(i)*1000); err != nil {
					t.Error(err)
				}
				if n := storage.OpenHandles(s); n > storage.MaxHandles+4 {
					t.Errorf("%d open files", n)
				}
			}
		})
	}
	writers.Wait()
	require.Equal(t, tor.NumPieces(), verified(t, tor, s).Count())
	require.LessOrEqual(t, storage.OpenHandles(s), storage.MaxHandles)
	require.NoError(t, s.Sync())
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		require.Less(t, len(fds), 200)
	}
}

func TestSymlinksDoNotLeadOut(t *testing.T) {
	tor, content := testContent(50, 120, 30)
	for _, link := range []string{"d", "d/0"} {
		t.Run(link, func(t *testing.T) {
			dir, outside := t.TempDir(), t.TempDir()
			require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, link)), 0o777))
			require.NoError(t, os.Symlink(filepath.Join(outside, "target"), filepath.Join(dir, link)))
			s := openDirectory(t, tor, dir)
			require.NoError(t, s.SetWanted(all(tor)))
			err := s.WriteBlocks([][]byte{content[:50]}, 0)
			require.Error(t, err)
			require.Contains(t, err.Error(), filepath.Join(dir, "d"))
			require.Empty(t, listing(t, outside))
		})
	}
	t.Run("to existing files", func(t *testing.T) {
		dir, outside := t.TempDir(), t.TempDir()
		fill(t, tor, outside, content)
		require.NoError(t, os.Symlink(filepath.Join(outside, "d"), filepath.Join(dir, "d")))
		testReadThroughLinks(t, tor, content, dir, outside)
	})
	t.Run("file by file", func(t *testing.T) {
		dir, outside := t.TempDir(), t.TempDir()
		fill(t, tor, outside, content)
		require.NoError(t, os.Mkdir(filepath.Join(dir, "d"), 0o777))
		for _, name := range []string{"d/0", "d/1"} {
			require.NoError(t, os.Symlink(filepath.Join(outside, name), filepath.Join(dir, name)))
		}
		testReadThroughLinks(t, tor, content, dir, outside)
	})
}

// testReadThroughLinks reads content through links in dir, and requires that a write does not go through them.
func testReadThroughLinks(t *testing.T, tor storage.Content, content []byte, dir, outside string) {
	have, err := storage.VerifyDir(t.Context(), tor, dir)
	require.NoError(t, err)
	require.Equal(t, bits.Full(tor.NumPieces()), have)
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	require.Equal(t, have, verified(t, tor, s))
	require.NoError(t, s.Settle(t.Context(), have))
	require.NoError(t, s.Finish())
	b, release, err := s.Bytes(0)
	require.NoError(t, err)
	require.Equal(t, content[:120], b)
	require.NoError(t, release())
	require.NoError(t, s.Changed(0))
	err = s.WriteBlocks([][]byte{make([]byte, 50)}, 0)
	require.ErrorContains(t, err, filepath.Join(dir, "d"))
	for _, f := range tor.Files() {
		b, err := os.ReadFile(filepath.Join(outside, f.Path))
		require.NoError(t, err)
		require.Equal(t, content[f.Offset:f.End()], b)
	}
	require.Equal(t, []string{"d/0", "d/1"}, listing(t, outside))
}

func TestADirectoryWhereAFileShouldBe(t *testing.T) {
	tor, _ := testContent(50, 120, 30)
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(dir+"/d/1", 0o777))
	_, err := storage.OpenFiles(tor, dir, nil)
	require.ErrorContains(t, err, filepath.Join(dir, "d", "1"))
}

func TestAFileWhereADirectoryShouldBe(t *testing.T) {
	tor, content := testContent(50, 120, 30)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(dir+"/d", []byte("in the way"), 0o666))
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	require.Zero(t, s.Present(t.Context()).Count())
	require.ErrorContains(t, s.WriteBlocks([][]byte{content[:50]}, 0), filepath.Join(dir, "d"))
}

func TestNamesThatDifferInCase(t *testing.T) {
	tor, content := testContent(50, 60, 60)
	tor.File(0).Path, tor.File(1).Path = "d/README", "d/readme.1"
	dir := t.TempDir()
	fill(t, tor, dir, content)
	tor.File(0).Path, tor.File(1).Path = "d/README", "d/Readme"
	if _, err := os.Stat(dir + "/D"); err == nil {
		t.Skip("names that differ in case are equal on this system")
	}
	dir = t.TempDir()
	fill(t, tor, dir, content)
	require.Equal(t, []string{"d/README", "d/Readme"}, listing(t, dir))
}

func TestLongPath(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("paths must be short on this system")
	}
	tor, content := testContent(50, 60, 60)
	deep := strings.Repeat(strings.Repeat("x", 200)+"/", 30) // longer than PATH_MAX
	tor.File(1).Path = "d/" + deep + "file"
	dir := t.TempDir()
	fill(t, tor, dir, content)
	have, err := storage.VerifyDir(t.Context(), tor, dir)
	require.NoError(t, err)
	require.Equal(t, have.Len(), have.Count())
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	require.NoError(t, s.Changed(1))
	require.NoError(t, s.Close())
	root, err := os.OpenRoot(dir) // can remove paths that are too long for os.RemoveAll
	require.NoError(t, err)
	require.NoError(t, root.RemoveAll("d"))
	require.NoError(t, root.Close())
}

func TestAfterClose(t *testing.T) {
	tor, content := testContent(50, 120)
	s := openDirectory(t, tor, t.TempDir())
	require.NoError(t, s.SetWanted(all(tor)))
	require.NoError(t, s.Close())
	_, err := s.ReadAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, storage.ErrClosed)
	require.ErrorIs(t, s.WriteBlocks([][]byte{content[:50]}, 0), storage.ErrClosed)
	require.ErrorIs(t, s.Sync(), storage.ErrClosed)
	require.ErrorIs(t, s.Changed(0), storage.ErrClosed)
	_, _, err = s.Bytes(0)
	require.ErrorIs(t, err, storage.ErrClosed)
}

func TestReadsOfMissingBytesFail(t *testing.T) {
	tor, content := testContent(50, 120, 80)
	s := openDirectory(t, tor, t.TempDir())
	require.NoError(t, s.SetWanted(all(tor)))
	_, err := s.ReadAt(make([]byte, 10), 0)
	require.True(t, storage.Unwritten(err), "%v", err)
	writePiece(t, tor, s, content, 0)
	n, err := s.ReadAt(make([]byte, 60), 0)
	require.True(t, storage.Unwritten(err), "%v", err)
	require.Less(t, n, 60)
	_, _, err = s.Bytes(0)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	_, err = s.ReadAt(make([]byte, 1), 200)
	require.Equal(t, io.EOF, err)
	_, err = s.ReadAt(make([]byte, 1), -1)
	require.Error(t, err)
	require.Error(t, s.WriteBlocks([][]byte{make([]byte, 51)}, 150))
	require.Error(t, s.WriteBlocks([][]byte{make([]byte, 1)}, -1))
}
