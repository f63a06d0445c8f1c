package storagetest_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/storagetest"
)

// flat keeps a torrent as one run of bytes in a single file, named for its info hash. An *os.File is
// all that this takes: it reads and writes at offsets from any goroutine, syncs, and returns io.EOF
// beyond what was written.
func flat(dir string) func(*torrent.Torrent) (torrent.Storage, error) {
	return func(t *torrent.Torrent) (torrent.Storage, error) {
		return os.OpenFile(filepath.Join(dir, t.InfoHash().String()), os.O_RDWR|os.O_CREATE, 0o666)
	}
}

// The least that a storage can be. In use it is torrent.Options{Storage: flat(dir)}.
func ExampleRun() {
	_ = func(t *testing.T) { // TestFlat, in a file of tests
		storagetest.Run(t, func(tor *torrent.Torrent) (torrent.Storage, error) {
			return flat(t.TempDir())(tor) // empty each time
		})
	}
}

// A file keeps what it holds.
func ExampleReopen() {
	_ = func(t *testing.T) { // in a test of its own
		storagetest.Reopen(t, flat(t.TempDir()))
	}
}

func TestFlat(t *testing.T) {
	storagetest.Run(t, func(tor *torrent.Torrent) (torrent.Storage, error) { return flat(t.TempDir())(tor) })
	storagetest.Reopen(t, flat(t.TempDir()))
}
