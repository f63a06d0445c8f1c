package torrenttest_test

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/torrenttest"
)

var tide = map[string]string{"tide/ebb.txt": strings.Repeat("out ", 20_000), "tide/flood.txt": "in", "tide/moon/new.txt": ""}

// has requires that the download holds the files, under their paths.
func has(t *testing.T, files *torrent.Downloaded, err error, want map[string]string) {
	t.Helper()
	require.NoError(t, err)
	defer files.Close()
	got := make(map[string]string)
	for f := range files.Files() {
		b, err := f.Bytes()
		require.NoError(t, err)
		got[f.Path()] = string(b)
	}
	require.Equal(t, want, got)
}

func TestSeed(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"a directory": tide,
		"a file":      {"tide.txt": "neap"},
	} {
		t.Run(name, func(t *testing.T) {
			tor, seed := torrenttest.Seed(t, files)
			got, err := tor.DownloadAll(t.Context(), &torrent.Options{Peers: []netip.AddrPort{seed}})
			has(t, got, err, files)
			again, other := torrenttest.Seed(t, files)
			require.Equal(t, tor.InfoHash(), again.InfoHash())
			require.NotEqual(t, seed, other)
		})
	}
}

func TestSeedOfScatteredFiles(t *testing.T) {
	tor, seed := torrenttest.Seed(t, map[string]string{"a": "1", "b/c": "2"})
	got, err := tor.DownloadAll(t.Context(), &torrent.Options{Peers: []netip.AddrPort{seed}})
	has(t, got, err, map[string]string{"files/a": "1", "files/b/c": "2"})
}

func TestLiar(t *testing.T) {
	tor, liar := torrenttest.Liar(t, tide)
	client := &torrent.Client{NoDHT: true, Listen: "127.0.0.1:0"}
	t.Cleanup(func() { client.Close() })
	d, err := tor.Start(t.Context(), &torrent.Options{Client: client, Peers: []netip.AddrPort{liar}})
	require.NoError(t, err)
	for e := range d.Events(t.Context()) {
		if e.Kind == torrent.PeerBanned {
			require.Equal(t, liar, e.Peer)
			break
		}
	}
	_, seed := torrenttest.Seed(t, tide)
	d.AddPeers(seed)
	got, err := d.Wait()
	has(t, got, err, tide)
}

func TestTracker(t *testing.T) {
	tor, seed := torrenttest.Seed(t, tide)
	got, err := tor.DownloadAll(t.Context(), &torrent.Options{Trackers: [][]string{{torrenttest.Tracker(t, seed)}}})
	has(t, got, err, tide)
}

// In memory a tracker, a seed and a peer that lies are found by two clients, one of which learns of the other.
func TestNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := torrenttest.NewNetwork(t)
		tor, liar := n.Liar(tide)
		tracker := [][]string{{n.Tracker(liar)}}
		var first, second torrent.Client
		addr := n.Join(&first)
		n.Join(&second)
		d, err := tor.Start(t.Context(), &torrent.Options{Client: &first, Trackers: tracker, Seed: true})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.Equal(t, 1, d.Stats().Banned)
		_, seed := n.Seed(tide)
		d.AddPeers(seed)
		_, err = d.Wait()
		require.NoError(t, err)
		other, err := tor.Start(t.Context(), &torrent.Options{Client: &second, Trackers: tracker})
		require.NoError(t, err)
		got, err := other.Wait()
		has(t, got, err, tide)
		require.NotZero(t, d.Stats().Uploaded)
		require.Equal(t, addr.String(), first.Addr().String())
	})
}

func TestWithoutTB(t *testing.T) {
	require.Panics(t, func() { torrenttest.Make(nil, nil) })
	require.Panics(t, func() { torrenttest.Make(nil, map[string]string{"../a": "b"}) })
}
