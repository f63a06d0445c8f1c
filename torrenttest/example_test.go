package torrenttest_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/torrenttest"
)

// An example, which has no testing.TB. A test passes its own.
func ExampleSeed() {
	tor, seed := torrenttest.Seed(nil, map[string]string{"tide/ebb.txt": "out", "tide/flood.txt": "in"})
	files, err := tor.DownloadAll(context.Background(), &torrent.Options{Peers: []netip.AddrPort{seed}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer files.Close()
	b, err := files.ReadFile("tide/ebb.txt")
	fmt.Println(string(b), err)
	// Output:
	// out <nil>
}

// A torrent that no peer shares.
func ExampleMake() {
	tor := torrenttest.Make(nil, map[string]string{"tide/ebb.txt": "out", "tide/flood.txt": "in"})
	for f := range tor.Files() {
		fmt.Println(f.Path, f.Length)
	}
	// Output:
	// tide/ebb.txt 3
	// tide/flood.txt 2
}

// A tracker that names a seed.
func ExampleTracker() {
	tor, seed := torrenttest.Seed(nil, map[string]string{"tide.txt": "neap"})
	announce := torrenttest.Tracker(nil, seed)
	files, err := tor.DownloadAll(context.Background(), &torrent.Options{Trackers: [][]string{{announce}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer files.Close()
	b, err := files.ReadFile("tide.txt")
	fmt.Println(string(b), err)
	// Output:
	// neap <nil>
}

// What a peer that lies does to a download: it is banned, and the content is right.
func ExampleLiar() {
	tide := map[string]string{"tide.txt": "neap"}
	tor, liar := torrenttest.Liar(nil, tide)
	d, err := tor.Start(context.Background(), &torrent.Options{Peers: []netip.AddrPort{liar}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer d.Close()
	for e := range d.Events(context.Background()) {
		if e.Kind == torrent.PeerBanned {
			_, seed := torrenttest.Seed(nil, tide)
			d.AddPeers(seed)
			break
		}
	}
	files, err := d.Wait()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer files.Close()
	b, err := files.ReadFile("tide.txt")
	fmt.Println(string(b), err, d.Stats().Banned)
	// Output:
	// neap <nil> 1
}

// A swarm in memory, where waiting takes no time.
func ExampleNewNetwork() {
	_ = func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := torrenttest.NewNetwork(t)
			tor, seed := n.Seed(map[string]string{"tide.txt": "neap"})
			var client torrent.Client
			n.Join(&client)
			files, err := tor.DownloadAll(t.Context(), &torrent.Options{Client: &client, Peers: []netip.AddrPort{seed}})
			if err != nil {
				t.Fatal(err)
			}
			files.Close()
		})
	}
}
