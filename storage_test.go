package torrent

import (
	"context"
	"crypto/sha1"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
)

// testContent makes a torrent of files with the given lengths, and its content. Files are called
// "d/0", "d/1"…; a negative length is a padding file.
func testContent(pieceLength int64, lengths ...int64) (*Torrent, []byte) {
	t := &Torrent{name: "d", multi: true, infoHash: Hash{1, 2, 3}}
	var files []layout.File
	for i, n := range lengths {
		files = append(files, layout.File{Path: "d/" + strconv.Itoa(i), Length: max(n, -n), Pad: n < 0})
		t.length += max(n, 0)
	}
	t.layout = layout.New(pieceLength, files...)
	content := make([]byte, t.layout.Size())
	rng := rand.NewChaCha8([32]byte{7})
	for _, f := range t.layout.Files() {
		if !f.Pad {
			rng.Read(content[f.Offset:f.End()])
		}
	}
	for b := range slices.Chunk(content, int(pieceLength)) {
		sum := sha1.Sum(b)
		t.pieces = append(t.pieces, sum[:]...)
	}
	return t, content
}

// all wants every file.
func all(t *Torrent) []bool { return only(t, func(int) bool { return true }) }

// only wants the files that want is true for.
func only(t *Torrent, want func(i int) bool) []bool {
	w := make([]bool, t.layout.NumFiles())
	for i := range w {
		w[i] = want(i)
	}
	return w
}

func openDirectory(t *testing.T, tor *Torrent, dir string) *fileStorage {
	t.Helper()
	c, err := openFiles(tor.content(), dir, slog.New(slog.NewTextHandler(t.Output(), nil)))
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c.(*fileStorage)
}

// verified hashes what is present.
func verified(t *testing.T, tor *Torrent, c contents) bits.Set {
	t.Helper()
	have := bits.New(tor.NumPieces())
	which := c.present()
	if _, ok := c.(*memory); ok {
		which = bits.Full(tor.NumPieces()) // present is about an earlier run, and memory has none
	}
	require.NoError(t, hashPieces(t.Context(), tor.content(), c, which, func(piece int, ok bool) {
		if ok {
			have.Add(piece)
		}
	}))
	return have
}

// listing is the files under dir, slash-separated, in lexical order.
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

func pieceOf(t *Torrent, content []byte, i int) []byte {
	start := t.layout.PieceOffset(i)
	return content[start : start+t.layout.PieceSize(i)]
}

func writePiece(t *testing.T, tor *Torrent, c contents, content []byte, i int) {
	t.Helper()
	blocks := slices.Collect(slices.Chunk(pieceOf(tor, content, i), 7))
	require.NoError(t, c.writeBlocks(blocks, tor.layout.PieceOffset(i)))
}

// builtIn are the storages of this package, each for an empty place.
var builtIn = map[string]func(*testing.T, *Torrent) contents{
	"memory": func(t *testing.T, tor *Torrent) contents {
		c, err := openMemory(tor.content(), defaultMaxMemory)
		require.NoError(t, err)
		return c
	},
	"files": func(t *testing.T, tor *Torrent) contents { return openDirectory(t, tor, t.TempDir()) },
	"user": func(t *testing.T, tor *Torrent) contents {
		f, err := os.Create(filepath.Join(t.TempDir(), "flat"))
		require.NoError(t, err)
		return wrapStorage(tor.content(), f)
	},
}

func TestContentsRoundTrip(t *testing.T) {
	for name, open := range builtIn {
		t.Run(name, func(t *testing.T) {
			tor, content := testContent(50, 10, 0, 130, -20, 1, 1, 1, 0, 77, 200, -3, 0)
			c := open(t, tor)
			defer c.Close()
			require.NoError(t, c.setWanted(all(tor)))
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
			n, err := c.ReadAt(make([]byte, 10), tor.layout.Size()-4)
			require.Equal(t, 4, n)
			require.Equal(t, io.EOF, err)
			for i := range tor.layout.NumFiles() {
				f := tor.layout.File(i)
				if f.Pad {
					continue
				}
				require.NoError(t, c.changedFile(i))
				b, release, err := c.file(i)
				require.NoError(t, err)
				require.NotNil(t, b)
				require.Equal(t, content[f.Offset:f.End()], b)
				require.NoError(t, release())
			}
			require.NoError(t, c.Sync())
			require.NoError(t, c.finished())
		})
	}
}

func TestMemoryIsRefusedBeforeAllocation(t *testing.T) {
	tor := &Torrent{name: "huge", layout: layout.New(1<<40, layout.File{Path: "huge", Length: 1 << 50})}
	c, err := openMemory(tor.content(), defaultMaxMemory)
	require.NoError(t, err)
	require.ErrorIs(t, c.setWanted([]bool{true}), ErrTooLarge)
}

func TestHashPiecesEndsWithItsContext(t *testing.T) {
	tor, content := testContent(1<<20, 4<<20)
	for i := range 4 {
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("enough")
		reads := 0
		r := readerAt(func(p []byte, off int64) (int, error) {
			if reads++; reads > i {
				cancel(cause)
			}
			return copy(p, content[off:]), nil
		})
		which := bits.New(tor.NumPieces())
		which.Add(i)
		err := hashPieces(ctx, tor.content(), r, which, func(int, bool) {})
		require.ErrorIs(t, err, cause)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, i+1, reads)
	}
}

func TestHashPiecesReadErrors(t *testing.T) {
	tor, content := testContent(100, 1000)
	bad := errors.New("input/output error")
	fail := io.ErrUnexpectedEOF
	r := readerAt(func(p []byte, off int64) (int, error) {
		if off <= 350 && off+int64(len(p)) > 350 {
			return 0, fail
		}
		return copy(p, content[off:]), nil
	})
	got := bits.New(10)
	count := func(piece int, ok bool) {
		if ok {
			got.Add(piece)
		}
	}
	require.NoError(t, hashPieces(t.Context(), tor.content(), r, bits.Full(10), count))
	require.Equal(t, []int{0, 1, 2, 4, 5, 6, 7, 8, 9}, slices.Collect(got.All()))
	fail = bad
	require.ErrorIs(t, hashPieces(t.Context(), tor.content(), r, bits.Full(10), count), bad)
}

type readerAt func(p []byte, off int64) (int, error)

func (f readerAt) ReadAt(p []byte, off int64) (int, error) { return f(p, off) }
