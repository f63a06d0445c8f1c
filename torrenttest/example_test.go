package torrenttest_test

import (
	"context"
	"fmt"
	"net/netip"

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
