package torrent

import (
	"crypto/sha1"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bencode"
	"github.com/shoal-go/torrent/internal/bits"
)

var restarted = flag.Int("restart", 20, "how many torrents TestRestart has, of 1 GB each")

// bytesRead is how many bytes this process has read so far, by any system call, on systems that count.
func bytesRead(t *testing.T) (n int64) {
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skip(err)
	}
	_, err = fmt.Sscanf(string(b), "rchar: %d", &n)
	require.NoError(t, err)
	return n
}

// newSparse makes a torrent of 1 GB of zeros, and its file, which takes no room.
func newSparse(t *testing.T, dir, name string) *Torrent {
	t.Helper()
	const length, pieceLength = 1_000_000_000, 1 << 20
	pieces := (length + pieceLength - 1) / pieceLength
	sum, last := sha1.Sum(make([]byte, pieceLength)), sha1.Sum(make([]byte, length%pieceLength))
	sums := strings.Repeat(string(sum[:]), pieces-1) + string(last[:])
	info, err := bencode.Marshal(map[string]any{"length": length, "name": name, "piece length": pieceLength, "pieces": sums, "private": 1})
	require.NoError(t, err)
	tor, err := newTorrent(info, outer{})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
	require.NoError(t, os.Truncate(filepath.Join(dir, name), length))
	return tor
}

// A client that shared many torrents shares them again at once after a restart. -v prints the figures.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	var torrents []*Torrent
	for k := range *restarted {
		tor := newSparse(t, dir, fmt.Sprintf("content%d", k))
		s := openDirectory(t, tor, dir)
		require.NoError(t, s.SetWanted(all(tor)))
		require.NoError(t, s.Keep(bits.Full(tor.NumPieces()), nil))
		require.NoError(t, s.Close())
		torrents = append(torrents, tor)
	}
	runtime.GC()
	c := &Client{NoDHT: true, NoUTP: true, Listen: "127.0.0.1:0"}
	defer c.Close()
	read, began := bytesRead(t), time.Now()
	var downloads []*Download
	for _, tor := range torrents {
		d, err := tor.Start(t.Context(), &Options{Dir: dir, Seed: true, KeepResume: true, Client: c})
		require.NoError(t, err)
		downloads = append(downloads, d)
	}
	for _, d := range downloads {
		<-d.Done()
		require.Equal(t, Seeding, d.Stats().State)
		require.Zero(t, d.Stats().Checked)
	}
	took := time.Since(began)
	read = bytesRead(t) - read
	t.Logf("%d torrents of 1 GB: sharing %v after the restart, %.1f MB read", len(torrents), took.Round(time.Millisecond), float64(read)/1e6)
	require.Less(t, read, 50_000*int64(len(torrents)), "50 MB for a thousand")
	for _, d := range downloads {
		require.NoError(t, d.Close())
	}
}
