package torrent

import (
	"crypto/sha1"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
)

// fill writes the pieces to a fresh fileStorage of dir that wants all files, and closes it.
func fill(t *testing.T, tor *Torrent, dir string, content []byte) {
	t.Helper()
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.setWanted(all(tor)))
	for i := range tor.NumPieces() {
		writePiece(t, tor, s, content, i)
	}
	require.NoError(t, s.finished())
	require.NoError(t, s.Close())
}

func TestFilesHoldExactlyTheContent(t *testing.T) {
	tor, content := testContent(50, 10, 0, 130, -20, 1, 0, 77)
	dir := filepath.Join(t.TempDir(), "made", "on", "the way")
	fill(t, tor, dir, content)
	require.Equal(t, []string{"d/0", "d/1", "d/2", "d/4", "d/5", "d/6"}, listing(t, dir),
		"padding is not stored, empty files are, and no sidecar stays")
	for _, f := range tor.layout.Files() {
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
	require.NoError(t, s.setWanted(all(tor)))
	info, err := s.disk.stat(s.sidecar(".lock"))
	require.NoError(t, err)
	if info.inode == 0 {
		t.Skip("nothing is known here of the room that a file takes")
	}
	writePiece(t, tor, s, content, 40)
	require.Equal(t, []int{40}, slices.Collect(s.present().All()),
		"what comes before is a hole, what comes after is not there")
}

func TestPresent(t *testing.T) {
	const pieceLength = 64 << 10
	tor, content := testContent(pieceLength, 3*pieceLength, 3*pieceLength)
	clear(content[pieceLength : 2*pieceLength]) // a piece that is meant to hold zeros
	zero := sha1.Sum(make([]byte, pieceLength))
	copy(tor.pieces[20:], zero[:])

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
				t.Skip("holes may not be seen here")
			}
		}, []int{1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.Mkdir(dir+"/d", 0o777))
			c.make(t, dir)
			s := openDirectory(t, tor, dir)
			require.NoError(t, s.setWanted(all(tor)))
			require.Equal(t, c.want, slices.Collect(s.present().All()))
		})
	}
}

// Transmission leaves ".part" behind the names of files that it did not complete.
func TestPartFilesAreTakenOver(t *testing.T) {
	tor, content := testContent(50, 200, 100, 70)
	dir := t.TempDir()
	fill(t, tor, dir, content)
	require.NoError(t, os.Rename(dir+"/d/0", dir+"/d/0.part"))
	require.NoError(t, os.Truncate(dir+"/d/0.part", 120))
	require.NoError(t, os.Rename(dir+"/d/1", dir+"/d/1.part"))
	require.NoError(t, os.WriteFile(dir+"/d/2.part", content[:70], 0o644)) // of something else
	have, err := tor.Verify(t.Context(), dir)
	require.NoError(t, err)
	require.Equal(t, []int{0, 1, 4, 5, 6, 7}, slices.Collect(have.All()))

	s := openDirectory(t, tor, dir)
	require.NoError(t, s.setWanted(all(tor)))
	require.Equal(t, []int{0, 1, 4, 5, 6, 7}, pieces(verified(t, tor, s)))
	writePiece(t, tor, s, content, 2)
	writePiece(t, tor, s, content, 3)
	require.NoError(t, s.finished())
	require.Equal(t, bits.Full(8), verified(t, tor, s))
	require.NoError(t, s.Close())
	require.Equal(t, []string{"d/0", "d/1", "d/2", "d/2.part"}, listing(t, dir))

	require.NoError(t, os.Rename(dir+"/d/0", dir+"/d/0.part"))
	require.NoError(t, os.WriteFile(dir+"/d/0.part", make([]byte, 201), 0o644))
	s = openDirectory(t, tor, dir)
	require.NotContains(t, pieces(s.present()), 0, "too long to be a part")
}

func TestTooLongIsCutWhenFinished(t *testing.T) {
	tor, content := testContent(50, 120, 30)
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(dir+"/d", 0o777))
	require.NoError(t, os.WriteFile(dir+"/d/0", append(content[:120:120], "more"...), 0o666))
	require.NoError(t, os.WriteFile(dir+"/d/1", content[120:], 0o666))
	have, err := tor.Verify(t.Context(), dir)
	require.NoError(t, err)
	require.Equal(t, have.Len(), have.Count())
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.setWanted(all(tor)))
	require.Equal(t, 3, verified(t, tor, s).Count())
	require.NoError(t, s.finished())
	require.Equal(t, []string{"d/0", "d/1"}, listing(t, dir))
	b, err := os.ReadFile(dir + "/d/0")
	require.NoError(t, err)
	require.Equal(t, content[:120], b)
	require.NoError(t, s.changed(0))
}

func TestVerify(t *testing.T) {
	tor, content := testContent(50, 120, 130)
	dir := t.TempDir()
	_, err := tor.Verify(t.Context(), filepath.Join(dir, "not there"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	have, err := tor.Verify(t.Context(), dir)
	require.NoError(t, err)
	require.Zero(t, have.Count())
	require.Empty(t, listing(t, dir), "verifying leaves nothing behind")

	fill(t, tor, dir, content)
	f, err := os.OpenFile(dir+"/d/1", os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("wrong"), 0) // piece 2 begins 20 bytes before
	require.NoError(t, err)
	require.NoError(t, f.Close())
	have, err = tor.Verify(t.Context(), dir)
	require.NoError(t, err)
	require.Equal(t, []int{0, 1, 3, 4}, slices.Collect(have.All()))
}

func TestOpenHandlesAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 10,000 files")
	}
	tor, content := testContent(1000, slices.Repeat([]int64{100}, 10_000)...)
	dir := t.TempDir()
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.setWanted(all(tor)))
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := w; i < tor.NumPieces(); i += 4 {
				if err := s.writeBlocks([][]byte{pieceOf(tor, content, i)}, int64(i)*1000); err != nil {
					t.Error(err)
				}
				s.handles.mu.Lock()
				if n := len(s.handles.files); n > maxHandles+4 {
					t.Errorf("%d open files", n)
				}
				s.handles.mu.Unlock()
			}
		})
	}
	writers.Wait()
	require.Equal(t, tor.NumPieces(), verified(t, tor, s).Count())
	require.LessOrEqual(t, len(s.handles.files), maxHandles)
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
			require.NoError(t, s.setWanted(all(tor)))
			err := s.writeBlocks([][]byte{content[:50]}, 0)
			require.Error(t, err)
			require.Contains(t, err.Error(), filepath.Join(dir, "d"))
			require.Empty(t, listing(t, outside))
		})
	}
	t.Run("to what is there", func(t *testing.T) {
		dir, outside := t.TempDir(), t.TempDir()
		fill(t, tor, outside, content)
		require.NoError(t, os.Symlink(filepath.Join(outside, "d"), filepath.Join(dir, "d")))
		s := openDirectory(t, tor, dir)
		_, err := s.ReadAt(make([]byte, 10), 0)
		require.Error(t, err)
		require.False(t, unwritten(err))
		require.Error(t, s.writeBlocks([][]byte{content[:50]}, 0))
	})
}

func TestWhatIsNoFileIsRefused(t *testing.T) {
	tor, _ := testContent(50, 120, 30)
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(dir+"/d/1", 0o777))
	_, err := openFiles(tor.content(), dir, nil)
	require.ErrorContains(t, err, filepath.Join(dir, "d", "1"))
}

func TestAFileWhereADirectoryShouldBe(t *testing.T) {
	tor, content := testContent(50, 120, 30)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(dir+"/d", []byte("in the way"), 0o666))
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.setWanted(all(tor)))
	require.Zero(t, s.present().Count())
	require.ErrorContains(t, s.writeBlocks([][]byte{content[:50]}, 0), filepath.Join(dir, "d"))
}

func TestNamesThatDifferInCase(t *testing.T) {
	tor, content := testContent(50, 60, 60)
	tor.layout.File(0).Path, tor.layout.File(1).Path = "d/README", "d/readme.1"
	dir := t.TempDir()
	fill(t, tor, dir, content)
	tor.layout.File(0).Path, tor.layout.File(1).Path = "d/README", "d/Readme"
	if _, err := os.Stat(dir + "/D"); err == nil {
		t.Skip("names do not differ in case here")
	}
	dir = t.TempDir()
	fill(t, tor, dir, content)
	require.Equal(t, []string{"d/README", "d/Readme"}, listing(t, dir))
}

func TestLongPath(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("paths are short here")
	}
	tor, content := testContent(50, 60, 60)
	deep := strings.Repeat(strings.Repeat("x", 200)+"/", 30) // longer than PATH_MAX
	tor.layout.File(1).Path = "d/" + deep + "file"
	dir := t.TempDir()
	fill(t, tor, dir, content)
	have, err := tor.Verify(t.Context(), dir)
	require.NoError(t, err)
	require.Equal(t, have.Len(), have.Count())
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.setWanted(all(tor)))
	require.NoError(t, s.changed(1))
	require.NoError(t, s.Close())
	root, err := os.OpenRoot(dir) // which can take away what os.RemoveAll may not reach
	require.NoError(t, err)
	require.NoError(t, root.RemoveAll("d"))
	require.NoError(t, root.Close())
}

func TestAfterClose(t *testing.T) {
	tor, content := testContent(50, 120)
	s := openDirectory(t, tor, t.TempDir())
	require.NoError(t, s.setWanted(all(tor)))
	require.NoError(t, s.Close())
	_, err := s.ReadAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, ErrClosed)
	require.ErrorIs(t, s.writeBlocks([][]byte{content[:50]}, 0), ErrClosed)
	require.ErrorIs(t, s.Sync(), ErrClosed)
	require.ErrorIs(t, s.changed(0), ErrClosed)
	_, _, err = s.file(0)
	require.ErrorIs(t, err, ErrClosed)
}

func TestWhatOthersDoIsNoticed(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("an open file cannot be taken away here")
	}
	past := time.Now().Add(-time.Hour)
	for _, c := range []struct {
		name string
		do   func(path string) error // the path is that of pieces 1 to 4
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
			// As if time had gone on since we wrote.
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
			require.NoError(t, s.setWanted(all(tor)))
			for i := range 5 {
				writePiece(t, tor, s, content, i)
				require.NoError(t, s.changed(i))
			}
			require.NoError(t, c.do(dir+"/d/1"))
			for i := 1; i < 5; i++ {
				require.ErrorIs(t, s.changed(i), errChanged)
			}
			require.ErrorIs(t, s.changedFile(1), errChanged)
			piece, err := s.anyChanged(set(5, 2, 4))
			require.Equal(t, 2, piece)
			require.ErrorIs(t, err, errChanged)
			_, _, err = s.file(1)
			require.ErrorIs(t, err, errChanged)
			require.ErrorContains(t, err, dir+"/d/1")

			doubt, err := s.renew(2)
			require.NoError(t, err)
			require.Equal(t, []int{1, 2, 3, 4}, slices.Collect(doubt.All()), "the pieces of this file")
			require.NoError(t, s.changed(3))
			if s.changed(0) != nil { // whose file was in the same directory
				_, err := s.renew(0)
				require.NoError(t, err)
			}

			have := verified(t, tor, s)
			for i := range 5 {
				if !have.Has(i) {
					writePiece(t, tor, s, content, i)
				}
			}
			require.Equal(t, 5, verified(t, tor, s).Count())
			piece, err = s.anyChanged(bits.Full(5))
			require.Equal(t, -1, piece)
			require.NoError(t, err)
			again, err := tor.Verify(t.Context(), dir)
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

// A write must not hide that the file had been changed before it.
func TestWhatOthersDidIsNoticedAfterOurNextWrite(t *testing.T) {
	for name, do := range map[string]func(string) error{
		"truncated": func(path string) error { return os.Truncate(path, 7) },
		"removed":   os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			tor, content := testContent(50, 200)
			dir := t.TempDir()
			s := openDirectory(t, tor, dir)
			require.NoError(t, s.setWanted(all(tor)))
			writePiece(t, tor, s, content, 0)
			writePiece(t, tor, s, content, 1)
			require.NoError(t, do(dir+"/d/0"))
			writePiece(t, tor, s, content, 3)
			require.ErrorIs(t, s.changed(0), errChanged)

			have := bits.New(4)
			have.Add(0)
			have.Add(3)
			require.NoError(t, s.saveResume(have, nil))
			require.NoError(t, s.Close())
			s = openDirectory(t, tor, dir)
			got, _ := s.loadResume()
			require.Zero(t, got.Count(), "no claim is made of a file that was changed")
		})
	}
}

func TestAVanishedDirectoryIsAnError(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("an open directory cannot be taken away here")
	}
	tor, content := testContent(50, 200)
	dir := filepath.Join(t.TempDir(), "gone")
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.setWanted(all(tor)))
	writePiece(t, tor, s, content, 0)
	require.NoError(t, os.RemoveAll(dir))
	require.ErrorIs(t, s.changed(0), errChanged)
	err := s.writeBlocks([][]byte{content[50:100]}, 50)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, dir)
	require.NoError(t, s.Close())
}

func TestReadsOfWhatIsNotThereFail(t *testing.T) {
	tor, content := testContent(50, 120, 80)
	s := openDirectory(t, tor, t.TempDir())
	require.NoError(t, s.setWanted(all(tor)))
	_, err := s.ReadAt(make([]byte, 10), 0)
	require.True(t, unwritten(err), "%v", err)
	writePiece(t, tor, s, content, 0)
	n, err := s.ReadAt(make([]byte, 60), 0)
	require.True(t, unwritten(err), "%v", err)
	require.Less(t, n, 60)
	_, _, err = s.file(0)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	_, err = s.ReadAt(make([]byte, 1), 200)
	require.Equal(t, io.EOF, err)
	_, err = s.ReadAt(make([]byte, 1), -1)
	require.Error(t, err)
	require.Error(t, s.writeBlocks([][]byte{make([]byte, 51)}, 150))
	require.Error(t, s.writeBlocks([][]byte{make([]byte, 1)}, -1))
}

func BenchmarkChanged(b *testing.B) {
	tor, content := testContent(1<<20, 4<<20)
	tor.layout.File(0).Path = "some directory/with a longer name/and then a file.iso"
	c, err := openFiles(tor.content(), b.TempDir(), nil)
	require.NoError(b, err)
	defer c.Close()
	require.NoError(b, c.setWanted(all(tor)))
	require.NoError(b, c.writeBlocks([][]byte{content}, 0))
	b.ReportAllocs()
	for b.Loop() {
		if err := c.changed(2); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWriteBlocks(b *testing.B) {
	tor, content := testContent(1<<20, 64<<20)
	c, err := openFiles(tor.content(), b.TempDir(), nil)
	require.NoError(b, err)
	defer c.Close()
	require.NoError(b, c.setWanted(all(tor)))
	blocks := slices.Collect(slices.Chunk(content[:1<<20], blockSize))
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if err := c.writeBlocks(blocks, int64(i%64)<<20); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// BenchmarkVerify compares hashing files that are in the page cache with hashing memory.
func BenchmarkVerify(b *testing.B) {
	const size = 512 << 20
	for _, pieceLength := range []int64{16 << 10, 256 << 10, 4 << 20} {
		tor, content := testContent(pieceLength, size)
		dir := b.TempDir()
		c, err := openFiles(tor.content(), dir, nil)
		require.NoError(b, err)
		require.NoError(b, c.setWanted(all(tor)))
		require.NoError(b, c.writeBlocks([][]byte{content}, 0))
		require.NoError(b, c.Close())
		b.Run(fmt.Sprintf("files/%dKiB", pieceLength>>10), func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				have, err := tor.Verify(b.Context(), dir)
				if err != nil || have.Count() < have.Len() {
					b.Fatal(have.Count(), err)
				}
			}
		})
		b.Run(fmt.Sprintf("memory/%dKiB", pieceLength>>10), func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				var cores sync.WaitGroup
				n := runtime.GOMAXPROCS(0)
				for core := range n {
					cores.Go(func() {
						for i := core; i < tor.NumPieces(); i += n {
							if Hash(sha1.Sum(pieceOf(tor, content, i))) != tor.pieceHash(i) {
								b.Error("wrong")
							}
						}
					})
				}
				cores.Wait()
			}
		})
		os.Remove(dir + "/d/0")
	}
}
