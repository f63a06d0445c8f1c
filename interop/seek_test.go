//go:build linux

package interop

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

var seekSize = flag.Int64("seeksize", 32<<20, "length of the file that TestSeek seeks in, in bytes")

// While a file is downloaded from libtorrent at 20 MB/s, readers seek in it, and a browser asks for a part
// of it. -v prints how long their first bytes took.
func TestSeek(t *testing.T) {
	need(t, libtorrent.programs...)
	const speed = 20 << 20
	dir := t.TempDir()
	name := filepath.Join(dir, contentName)
	file, err := os.Create(name)
	require.NoError(t, err)
	_, err = io.CopyN(file, rand.NewChaCha8([32]byte{9}), *seekSize)
	require.NoError(t, err)
	defer file.Close()
	tor, err := torrent.Create(name, nil)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "seek.torrent")
	writeTorrent(t, path, tor)
	seed := startLibtorrent(t, role{what: path, dir: dir, seed: true}, "--up", strconv.Itoa(speed))
	seed.awaitText(t, "seeding")

	d := startLibrary(t, role{what: path, dir: t.TempDir()}, netip.AddrPortFrom(seed.host, peerPort))
	begun := min(*seekSize/10, 3*speed)
	require.Eventually(t, func() bool { return d.Stats().Verified >= begun }, patience, time.Millisecond)
	r, err := d.Open(t.Context(), contentName)
	require.NoError(t, err)
	defer r.Close()
	var times []time.Duration
	want, got := make([]byte, 16<<10), make([]byte, 16<<10)
	for _, at := range []int64{*seekSize / 2, *seekSize * 9 / 10, *seekSize / 5, *seekSize * 7 / 10} {
		_, err := r.Seek(at, io.SeekStart)
		require.NoError(t, err)
		start := time.Now()
		_, err = io.ReadFull(r, got)
		require.NoError(t, err)
		times = append(times, time.Since(start).Round(time.Millisecond))
		_, err = file.ReadAt(want, at)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), "at %d", at)
	}

	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r, err := d.Open(req.Context(), contentName)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer r.Close()
		http.ServeContent(w, req, contentName, time.Time{}, r)
	}))
	defer web.Close()
	at := *seekSize * 3 / 10
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, web.URL, nil)
	require.NoError(t, err)
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-", at))
	start := time.Now()
	answer, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer answer.Body.Close()
	require.Equal(t, http.StatusPartialContent, answer.StatusCode)
	_, err = io.ReadFull(answer.Body, got)
	require.NoError(t, err)
	overHTTP := time.Since(start).Round(time.Millisecond)
	_, err = file.ReadAt(want, at)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
	s := d.Stats()
	t.Logf("%d bytes in pieces of %d, %d%% here, from libtorrent at %d bytes/s: first bytes after %v; over HTTP after %v",
		*seekSize, tor.PieceLength(), 100*s.Verified/s.Wanted, speed, times, overHTTP)
}
