package examples_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/torrenttest"
)

func TestMetrics(t *testing.T) {
	tor, seed := torrenttest.Seed(t, tide)
	dir := t.TempDir()
	files, err := tor.DownloadAll(t.Context(), &torrent.Options{Dir: dir, Peers: []netip.AddrPort{seed}, Client: &torrent.Client{NoDHT: true}})
	require.NoError(t, err)
	require.NoError(t, files.Close())
	cmd := command(t, "metrics", "-dir", dir, "-http", "127.0.0.1:0", "-dht", "off", write(t, tor))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	url, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	url = strings.TrimSpace(url)
	get := func(url string) string {
		r, err := http.Get(url)
		require.NoError(t, err)
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		return string(b)
	}
	require.Contains(t, get(url), "# TYPE torrent_downloads gauge\ntorrent_downloads 1\n")
	require.Contains(t, get(url), "torrent_downloaded_bytes_total 0\n")
	b := get(strings.TrimSuffix(url, "metrics") + "debug/vars")
	var raw map[string]json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(b), &raw))
	require.Contains(t, string(raw["torrent"]), `"Downloads":1`)
	require.NoError(t, cmd.Process.Kill())
	cmd.Wait()
}
