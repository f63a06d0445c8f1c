package torrent_test

import (
	"bytes"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

// meddlings are what another program may do to a file under our hands.
var meddlings = []struct {
	name string
	do   func(t *testing.T, path string)
}{
	{"truncated", func(t *testing.T, path string) { require.NoError(t, os.Truncate(path, 40_000)) }},
	{"emptied", func(t *testing.T, path string) { require.NoError(t, os.Truncate(path, 0)) }},
	{"overwritten", func(t *testing.T, path string) {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		require.NoError(t, err)
		_, err = f.WriteAt([]byte("something else"), 50_000)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		// The clock of a file system may stand still for some milliseconds.
		later := time.Now().Add(time.Second)
		require.NoError(t, os.Chtimes(path, later, later))
	}},
	{"longer", func(t *testing.T, path string) {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		require.NoError(t, err)
		_, err = f.WriteString("more")
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}},
	{"replaced", func(t *testing.T, path string) {
		require.NoError(t, os.WriteFile(path+".new", make([]byte, 100_000), 0o644))
		require.NoError(t, os.Rename(path+".new", path))
	}},
	{"removed", func(t *testing.T, path string) { require.NoError(t, os.Remove(path)) }},
	{"removed with its directory", func(t *testing.T, path string) { require.NoError(t, os.RemoveAll(filepath.Dir(path))) }},
}

// meddled is content of three files, the first of which is meddled with.
func meddled(t *testing.T) *share {
	return makeShare(t, torrent.CreateOptions{}, part{"a/a.bin", 200_000}, part{"b.bin", 150_000}, part{"c.bin", 150_000})
}

// onDisk requires that a directory holds the content.
func (s *share) onDisk(t *testing.T, dir string) {
	t.Helper()
	have, err := s.Verify(t.Context(), dir)
	require.NoError(t, err)
	require.Equal(t, s.NumPieces(), have.Count())
}

// What others do to files while a download runs is noticed before it is called complete, said in Stats,
// and mended.
func TestMeddlingWhileDownloading(t *testing.T) {
	for _, tt := range meddlings {
		t.Run(tt.name, func(t *testing.T) {
			s := meddled(t)
			peer := s.gated(t)
			dir := t.TempDir()
			d := s.start(t, torrent.Options{Dir: dir, Peers: []netip.AddrPort{peer.addr}})
			first := s.piecesOf("share/a/a.bin")
			peer.give(first...)
			until(t, "the first file is there", func() bool { return d.Stats().PiecesVerified == len(first) })
			tt.do(t, filepath.Join(dir, "share", "a", "a.bin"))
			peer.give()
			s.same(t, complete(t, d))
			require.NotZero(t, d.Stats().StorageErrors)
			require.ErrorContains(t, d.Stats().StorageError, "a.bin")
			require.Zero(t, d.Stats().Banned, "no peer is to blame")
			s.onDisk(t, dir)
		})
	}
}

// Others do it while we seed: nothing of it is served, it is said in Stats, and fetched again.
func TestMeddlingWhileSeeding(t *testing.T) {
	for _, tt := range meddlings {
		t.Run(tt.name, func(t *testing.T) {
			s := meddled(t)
			peer := s.gated(t)
			peer.give()
			dir := t.TempDir()
			c := local()
			t.Cleanup(func() { c.Close() })
			d := s.start(t, torrent.Options{Dir: dir, Peers: []netip.AddrPort{peer.addr}, Client: c, Seed: true})
			complete(t, d)
			before := peer.sent.Load()
			tt.do(t, filepath.Join(dir, "share", "a", "a.bin"))

			var log bytes.Buffer
			theirs := local()
			theirs.Logger = slog.New(slog.NewTextHandler(&log, nil))
			other := s.start(t, torrent.Options{Peers: []netip.AddrPort{addrOf(c)}, MaxPeers: 1, Client: theirs})
			s.same(t, complete(t, other))
			require.NoError(t, theirs.Close())
			require.Contains(t, log.String(), "complete")
			require.NotContains(t, log.String(), "failed its hash", "not a wrong byte was served")
			require.NotZero(t, d.Stats().StorageErrors)
			require.ErrorContains(t, d.Stats().StorageError, "a.bin")
			until(t, "it is mended", func() bool { return d.Stats().Complete })
			s.onDisk(t, dir)
			require.LessOrEqual(t, peer.sent.Load()-before, int64(len(s.piecesOf("share/a/a.bin")))*s.PieceLength(), "only what was spoiled came again")
		})
	}
}

// Where the whole directory vanishes under a download, it ends with that error, and the next one begins
// anew.
func TestDirectoryVanishes(t *testing.T) {
	s := meddled(t)
	peer := s.gated(t)
	dir := filepath.Join(t.TempDir(), "dir")
	d := s.start(t, torrent.Options{Dir: dir, Peers: []netip.AddrPort{peer.addr}})
	first := s.piecesOf("share/a/a.bin")
	peer.give(first...)
	until(t, "the first file is there", func() bool { return d.Stats().PiecesVerified == len(first) })
	require.NoError(t, os.RemoveAll(dir))
	peer.give()
	_, err := wait(t, d)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, dir)
	require.NoError(t, d.Close())
	s.same(t, complete(t, s.start(t, torrent.Options{Dir: dir, Peers: []netip.AddrPort{peer.addr}})))
}

// Where it vanishes while we seed, Wait has long returned: Stats says what ended it.
func TestDirectoryVanishesWhileSeeding(t *testing.T) {
	s := meddled(t)
	peer := s.gated(t)
	peer.give()
	dir := filepath.Join(t.TempDir(), "dir")
	c := local()
	t.Cleanup(func() { c.Close() })
	d := s.start(t, torrent.Options{Dir: dir, Peers: []netip.AddrPort{peer.addr}, Client: c, Seed: true})
	complete(t, d)
	require.NoError(t, os.RemoveAll(dir))
	s.start(t, torrent.Options{Peers: []netip.AddrPort{addrOf(c)}, MaxPeers: 1})
	until(t, "it has ended", func() bool {
		for range c.Downloads() {
			return false
		}
		return true
	})
	require.NoError(t, d.Close())
	require.ErrorIs(t, d.Stats().StorageError, fs.ErrNotExist)
	require.ErrorContains(t, d.Stats().StorageError, "write piece")
}
