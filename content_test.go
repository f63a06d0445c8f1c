package torrent

import (
	"crypto/sha1"
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
	"github.com/shoal-go/torrent/internal/storage"
)

// testContent makes a torrent of files with the given lengths, and its content. Files are called
// "d/0", "d/1"…; a negative length is a padding file.
func testContent(pieceLength int64, lengths ...int64) (*Torrent, []byte) {
	t := &Torrent{name: "d", multi: true, infoHash: Hash{1, 2, 3}, private: true} // so that nothing asks the DHT for it
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

// all chooses every file.
func all(t *Torrent) []bool { return slices.Repeat([]bool{true}, t.layout.NumFiles()) }

// builtIn opens each kind of storage that a download may have, empty.
var builtIn = map[string]func(*testing.T, *Torrent) storage.Store{
	"memory": func(t *testing.T, tor *Torrent) storage.Store {
		return storage.NewMemory(tor.content(), defaultMaxMemory)
	},
	"files": func(t *testing.T, tor *Torrent) storage.Store { return openDirectory(t, tor, t.TempDir()) },
	"user": func(t *testing.T, tor *Torrent) storage.Store {
		f, err := os.Create(filepath.Join(t.TempDir(), "flat"))
		require.NoError(t, err)
		return storage.Wrap(tor.content(), f, bits.New(0), nil)
	},
}

func openDirectory(t *testing.T, tor *Torrent, dir string) storage.Store {
	t.Helper()
	s, err := new(storage.Claims).OpenFiles(tor.content(), dir, slog.New(slog.NewTextHandler(t.Output(), nil)))
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// fill writes the content to a directory.
func fill(t *testing.T, tor *Torrent, dir string, content []byte) {
	t.Helper()
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	require.NoError(t, s.WriteBlocks([][]byte{content}, 0))
	require.NoError(t, s.Finish())
	require.NoError(t, s.Close())
}

// filesUnder is the files under dir, slash-separated, in lexical order.
func filesUnder(t *testing.T, dir string) []string {
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

// set is a set of n pieces with some of them in it.
func set(n int, pieces ...int) bits.Set {
	b := bits.New(n)
	for _, i := range pieces {
		b.Add(i)
	}
	return b
}

// OpenMemory is the storage that a download without Dir gets.
func OpenMemory(t *Torrent) (Storage, error) {
	s := storage.NewMemory(t.content(), defaultMaxMemory)
	return s, s.SetWanted(all(t))
}

// OpenFilesIn is the storage that a download gets into a directory, each into a new one.
func OpenFilesIn(dir func() string) func(*Torrent) (Storage, error) {
	return func(t *Torrent) (Storage, error) {
		s, err := new(storage.Claims).OpenFiles(t.content(), dir(), nil)
		if err != nil {
			return nil, err
		}
		return s, s.SetWanted(all(t))
	}
}
