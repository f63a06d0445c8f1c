package torrent

import (
	"context"
	"fmt"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
)

// A function of the user's finds peers for a magnet link and for the download that follows, and is asked again while no
// peer is connected.
func TestFindPeers(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimResolvable(t, 4, false)
		seed := n.NewHost("80.0.0.2", 0, 0, 0)
		var asked []time.Duration
		began := time.Now()
		o := &Options{
			Client: simClient(t, n.NewHost("80.0.0.1", 0, 0, 0), nil),
			FindPeers: func(ctx context.Context, h Hash) iter.Seq[netip.AddrPort] {
				require.Equal(t, content.infoHash, h)
				asked = append(asked, time.Since(began))
				return func(yield func(netip.AddrPort) bool) { yield(seed.Addr(6881)) }
			},
		}
		go func() {
			simnet.Sleep(90 * time.Second) // the first two searches find a host without a client
			simSeed(t, simClient(t, seed, nil), content)
		}()
		m := &Magnet{InfoHash: content.infoHash}
		tor, err := m.Resolve(t.Context(), o)
		require.NoError(t, err)
		require.Equal(t, []time.Duration{0, time.Minute, 2 * time.Minute}, asked[:3])

		asked, began = nil, time.Now()
		o.Storage = newSimStorage(content).open
		o.Seed = true
		d, err := tor.Start(t.Context(), o)
		require.NoError(t, err)
		_, err = d.Wait()
		require.NoError(t, err)
		simnet.Sleep(16 * time.Minute)
		require.Equal(t, []time.Duration{0, 15 * time.Minute}, asked, "with a peer there is no hurry")
	})
}

// A tracker may name a peer by its host.
func TestTrackerNamesAHost(t *testing.T) {
	dir := writeContent(t, map[string]int{"a": 100_000})
	plain, err := Create(dir, nil)
	require.NoError(t, err)
	seed := &Client{Listen: "127.0.0.1:0"}
	t.Cleanup(func() { seed.Close() })
	d, err := plain.Start(t.Context(), &Options{Client: seed, Dir: filepath.Dir(dir), Seed: true})
	require.NoError(t, err)
	_, err = d.Wait()
	require.NoError(t, err)

	announced := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "d8:intervali1800e5:peersld2:ip9:peer.test4:porti%deeee", seed.port())
	}))
	t.Cleanup(announced.Close)
	tor, err := newTorrent(plain.info, outer{trackers: [][]string{{announced.URL + "/announce"}}})
	require.NoError(t, err)
	client := &Client{Listen: "127.0.0.1:0"}
	t.Cleanup(func() { client.Close() })
	var lookups atomic.Int32
	client.hooks.lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
		require.Equal(t, "peer.test", host)
		lookups.Add(1)
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	files, err := tor.DownloadAll(t.Context(), &Options{Client: client})
	require.NoError(t, err)
	require.NoError(t, files.Close())
	require.EqualValues(t, 1, lookups.Load())

	// What Dial dials may be behind a proxy, and is not looked up beside it.
	client.Dial = new(net.Dialer).DialContext
	require.Nil(t, client.lookupForOthers())
}
