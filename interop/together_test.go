//go:build linux

package interop

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

const (
	togetherSize  = 200_000_000
	togetherRate  = 10_000_000 // bytes a second that the seed uploads
	togetherCount = 4
)

// Four processes of examples/download fetch 200 MB from a libtorrent seed that uploads 10 MB/s. To
// send all of it to each of them would take it 80 s. They give each other the rest of it: it sends little more
// than one copy, which takes 20 s where the machine keeps up.
func TestTogether(t *testing.T) {
	need(t, pythonLibtorrent)
	dir := t.TempDir()
	built := output(t, "go", "build", "-o", filepath.Join(dir, "download"), "../examples/download")
	require.Empty(t, built)

	source := filepath.Join(dir, contentName)
	f, err := os.Create(source)
	require.NoError(t, err)
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{6}), togetherSize)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	tr := startTracker(t, trackerAddr)
	made, err := torrent.Create(source, &torrent.CreateOptions{PieceLength: 256 << 10, Trackers: [][]string{{tr.url}}})
	require.NoError(t, err)
	what := filepath.Join(dir, "what.torrent")
	writeTorrent(t, what, made)
	seed := startLibtorrent(t, role{what: what, dir: dir, seed: true}, "--up", fmt.Sprint(togetherRate))
	tr.await(t, "seeds", seed, seeds)

	began := time.Now()
	var all []*process
	var dirs []string
	for range togetherCount {
		dirs = append(dirs, t.TempDir())
		all = append(all, run(t, filepath.Join(dir, "download"), "-dir", dirs[len(dirs)-1], what))
	}
	var last time.Duration
	for k, p := range all {
		select {
		case <-p.done:
		case <-time.After(2 * patience):
			t.Fatalf("number %d is not complete: %s", k, tail(p.text(), 300))
		}
		require.True(t, p.cmd.ProcessState.Success())
		last = time.Since(began)
		t.Logf("number %d had ended after %.1f s", k, last.Seconds())
	}
	want, err := os.ReadFile(source)
	require.NoError(t, err)
	for _, d := range dirs {
		got, err := os.ReadFile(filepath.Join(d, contentName))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got))
	}
	seed.stop()
	sent := seed.uploaded(t)
	t.Logf("%d processes fetched %d MB each in %.1f s from a seed of %d MB/s, which sent %.2f copies and alone would need %.0f s",
		togetherCount, togetherSize/1_000_000, last.Seconds(), togetherRate/1_000_000,
		float64(sent)/togetherSize, float64(togetherCount*togetherSize)/togetherRate)
	require.Less(t, sent, int64(2*togetherSize), "the rest they gave each other")
}
