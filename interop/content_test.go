//go:build linux

package interop

import (
	"bytes"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

const (
	contentName = "album"
	pieceLength = 32 << 10
)

// makeContent fills dir with a directory of files that share pieces, lie in folders, are empty, and end
// in an odd last piece.
func makeContent(t *testing.T, dir string) {
	t.Helper()
	r := rand.NewChaCha8([32]byte{7})
	for _, f := range []struct {
		path string
		size int
	}{
		{"01 first.flac", 1_300_001},
		{"02 second.flac", 700_003},
		{"cover/back.png", 3*pieceLength - 5},
		{"cover/front.png", pieceLength},
		{"notes/empty.txt", 0},
		{"notes/one.txt", 1},
		{"notes/sleeve/text.txt", 16_385},
	} {
		b := make([]byte, f.size)
		r.Read(b)
		path := filepath.Join(dir, contentName, filepath.FromSlash(f.path))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, b, 0o644))
	}
}

// requireSame fails unless dir holds all of the content, equal to the bytes in want. An empty file may
// be missing: some programs make none.
func requireSame(t *testing.T, want, dir string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(want, contentName), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(want, path)
		require.NoError(t, err)
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(dir, rel))
		if len(b) == 0 && os.IsNotExist(err) {
			return nil
		}
		require.NoError(t, err)
		require.Truef(t, bytes.Equal(b, got), "%s differs (%d bytes, want %d)", rel, len(got), len(b))
		return nil
	})
	require.NoError(t, err)
}

// maker makes a torrent of the content in dir with some program.
type maker struct {
	name     string
	programs []string
	make     func(t *testing.T, dir, announce string) (path string)
}

var mktorrent = maker{"mktorrent", []string{"mktorrent"}, func(t *testing.T, dir, announce string) string {
	path := filepath.Join(t.TempDir(), "mktorrent.torrent")
	output(t, "mktorrent", "-l", "15", "-a", announce, "-o", path, filepath.Join(dir, contentName))
	return path
}}

// makers are those that the table has a row for.
var makers = []maker{
	mktorrent,
	{"transmission-create", []string{"transmission-create"}, func(t *testing.T, dir, announce string) string {
		path := filepath.Join(t.TempDir(), "transmission.torrent")
		output(t, "transmission-create", "-s", "32", "-t", announce, "-o", path, filepath.Join(dir, contentName))
		return path
	}},
	{"libtorrent", libtorrent.programs, makeWithLibtorrent("1")},
	{"libtorrent, hybrid", libtorrent.programs, makeWithLibtorrent("hybrid")},
	{"libtorrent, version 2", libtorrent.programs, makeWithLibtorrent("2")},
	{"this library", nil, makeWithLibrary(torrent.V1)},
	{"this library, hybrid", nil, makeWithLibrary(torrent.Hybrid)},
	{"this library, version 2", nil, makeWithLibrary(torrent.V2)},
}

func makeWithLibtorrent(version string) func(t *testing.T, dir, announce string) string {
	return func(t *testing.T, dir, announce string) string {
		path := filepath.Join(t.TempDir(), "libtorrent.torrent")
		output(t, pythonLibtorrent, scratch(t, "peer.py", libtorrentScript), "--create", filepath.Join(dir, contentName), path, announce, strconv.Itoa(pieceLength), version)
		return path
	}
}
