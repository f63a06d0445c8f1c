package storage_test

import (
	"crypto/sha1"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/storage"
)

// testContent makes a torrent of files with the given lengths, and its content. Files are called
// "d/0", "d/1"…; a negative length is a padding file.
func testContent(pieceLength int64, lengths ...int64) (storage.Content, []byte) {
	files := make([]layout.File, len(lengths))
	for i, n := range lengths {
		files[i] = layout.File{Path: "d/" + strconv.Itoa(i), Length: max(n, -n), Pad: n < 0}
	}
	l := layout.New(pieceLength, files...)
	content := make([]byte, l.Size())
	rng := rand.NewChaCha8([32]byte{7})
	for _, f := range l.Files() {
		if !f.Pad {
			rng.Read(content[f.Offset:f.End()])
		}
	}
	return contentOf(l, content), content
}

// contentOf returns the Content of a torrent with these files and bytes.
func contentOf(l layout.Layout, content []byte) storage.Content {
	var sums [][sha1.Size]byte
	for b := range slices.Chunk(content, int(l.PieceLength())) {
		sums = append(sums, sha1.Sum(b))
	}
	return storage.Content{
		Layout: l, Name: "d", InfoHash: [20]byte{1, 2, 3},
		NewCheck: func() storage.Check { return &sumCheck{sha1.New(), sums} },
	}
}

// sumCheck is a Check that compares pieces with their SHA-1 hashes.
type sumCheck struct {
	hash.Hash
	sums [][sha1.Size]byte
}

func (c *sumCheck) Matches(i int) bool { return string(c.Sum(nil)) == string(c.sums[i][:]) }

// sidecar returns the name of a file beside the content.
func sidecar(c storage.Content, suffix string) string {
	return fmt.Sprintf(".%x%s", c.InfoHash, suffix)
}

// all returns the argument of SetWanted for all files.
func all(t storage.Content) []bool { return only(t, func(int) bool { return true }) }

// only returns the argument of SetWanted for the files for which want returns true.
func only(t storage.Content, want func(i int) bool) []bool {
	w := make([]bool, t.NumFiles())
	for i := range w {
		w[i] = want(i)
	}
	return w
}

func openDirectory(t *testing.T, tor storage.Content, dir string) storage.Store {
	t.Helper()
	c, err := storage.OpenFiles(tor, dir, slog.New(slog.NewTextHandler(t.Output(), nil)))
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// verified hashes the pieces that are present and returns those that match.
func verified(t *testing.T, tor storage.Content, c storage.Store) bits.Set {
	t.Helper()
	have := bits.New(tor.NumPieces())
	which := c.Present(t.Context())
	if which.Count() == 0 {
		which = bits.Full(tor.NumPieces()) // Present reports pieces of an earlier run, of which memory has none
	}
	require.NoError(t, storage.Verify(t.Context(), tor, c, which, func(piece int, ok bool) {
		if ok {
			have.Add(piece)
		}
	}))
	return have
}

// listing returns the files under dir, slash-separated, in lexical order.
func listing(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			name, _ := filepath.Rel(dir, path)
			names = append(names, filepath.ToSlash(name))
		}
		return err
	}))
	return names
}

func pieceOf(t storage.Content, content []byte, i int) []byte {
	start := t.PieceOffset(i)
	return content[start : start+t.PieceSize(i)]
}

func writePiece(t *testing.T, tor storage.Content, c storage.Store, content []byte, i int) {
	t.Helper()
	blocks := slices.Collect(slices.Chunk(pieceOf(tor, content, i), 7))
	require.NoError(t, c.WriteBlocks(blocks, tor.PieceOffset(i)))
}

// builtIn opens each kind of store, empty.
var builtIn = map[string]func(*testing.T, storage.Content) storage.Store{
	"memory": func(t *testing.T, tor storage.Content) storage.Store {
		return storage.NewMemory(tor, 1<<30)
	},
	"files": func(t *testing.T, tor storage.Content) storage.Store { return openDirectory(t, tor, t.TempDir()) },
	"user": func(t *testing.T, tor storage.Content) storage.Store {
		f, err := os.Create(filepath.Join(t.TempDir(), "flat"))
		require.NoError(t, err)
		return storage.Wrap(tor, f, bits.New(0), nil)
	},
}

func TestStoreRoundTrip(t *testing.T) {
	for name, open := range builtIn {
		t.Run(name, func(t *testing.T) {
			tor, content := testContent(50, 10, 0, 130, -20, 1, 1, 1, 0, 77, 200, -3, 0)
			c := open(t, tor)
			defer c.Close()
			require.NoError(t, c.SetWanted(all(tor)))
			require.Zero(t, verified(t, tor, c).Count())
			for i := range tor.NumPieces() {
				writePiece(t, tor, c, content, i)
			}
			require.Equal(t, tor.NumPieces(), verified(t, tor, c).Count())
			for off := range content {
				n := min(60, len(content)-off)
				got := make([]byte, n)
				_, err := c.ReadAt(got, int64(off))
				require.NoError(t, err)
				require.Equal(t, content[off:off+n], got)
			}
			n, err := c.ReadAt(make([]byte, 10), tor.Size()-4)
			require.Equal(t, 4, n)
			require.Equal(t, io.EOF, err)
			for i := range tor.NumFiles() {
				f := tor.File(i)
				if f.Pad {
					continue
				}
				require.NoError(t, c.ChangedFile(i))
				b, release, err := c.Bytes(i)
				require.NoError(t, err)
				require.NotNil(t, b)
				require.Equal(t, content[f.Offset:f.End()], b)
				require.NoError(t, release())
			}
			require.NoError(t, c.Sync())
			require.NoError(t, c.Finish())
		})
	}
}

func TestMemoryIsRefusedBeforeAllocation(t *testing.T) {
	tor := storage.Content{Name: "huge", Layout: layout.New(1<<40, layout.File{Path: "huge", Length: 1 << 50})}
	c := storage.NewMemory(tor, 1<<30)
	require.ErrorIs(t, c.SetWanted([]bool{true}), storage.ErrTooLarge)
}

// readFull reads len(p) bytes.
func readFull(s storage.Store, p []byte, off int64) error {
	n, err := s.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	return err
}

// meetingDisk makes a file whose name begins with m only while another such file is being made.
type meetingDisk struct {
	storage.Disk
	meet  chan struct{}
	alone atomic.Bool
}

func (d *meetingDisk) Open(name string, flag int) (storage.DiskFile, error) {
	if flag&os.O_EXCL != 0 && strings.HasPrefix(name, "m") {
		select {
		case d.meet <- struct{}{}:
		case <-d.meet:
		case <-time.After(2 * time.Minute):
			d.alone.Store(true)
		}
	}
	return d.Disk.Open(name, flag)
}

// Several files of a large torrent are made at the same time, so that one that is slow to make does not delay the others.
func TestFilesAreMadeConcurrently(t *testing.T) {
	paths := []string{"first", "m1", "m2"}
	for i := range 1022 {
		paths = append(paths, fmt.Sprint("other", i))
	}
	tor, content := named(1, paths...)
	disk, err := storage.OpenRoot(t.TempDir())
	require.NoError(t, err)
	slow := &meetingDisk{Disk: disk, meet: make(chan struct{})}
	s, err := storage.OpenDisk(tor, slow, "dir", nil)
	require.NoError(t, err)
	defer s.Close()
	require.NoError(t, s.SetWanted(all(tor)))
	writePiece(t, tor, s, content, 0) // takes the lock
	var both sync.WaitGroup
	for _, off := range []int64{100, 200} {
		both.Go(func() { assert.NoError(t, s.WriteBlocks([][]byte{content[off : off+50]}, off)) })
	}
	both.Wait()
	require.False(t, slow.alone.Load())
	for _, off := range []int64{100, 200} {
		got := make([]byte, 50)
		_, err := s.ReadAt(got, off)
		require.NoError(t, err)
		require.Equal(t, content[off:off+50], got)
	}
}
