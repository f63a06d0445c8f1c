package torrent

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/stretchr/testify/require"
)

// A client that has all the peers it may have looks for another once a second: here the clock would stand
// still if it looked all the time.
func TestClientMaxPeers(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, 64<<10, 1<<20)
		var peers []*simpeer.Peer
		var addrs []netip.AddrPort
		for k := range 5 {
			p := simpeer.New("silent", n.NewHost(fmt.Sprintf("80.0.%d.1", k), 0, 0, 0), 6881, content.truth, simpeer.Script{Never: simpeer.Unchokes})
			require.NoError(t, p.Arrive())
			defer p.Stop()
			peers, addrs = append(peers, p), append(addrs, p.Addr())
		}
		client := simClient(t, n.NewHost("81.0.0.1", 0, 0, 0), nil)
		client.MaxPeers = 2
		d := simLeech(t, client, content, addrs...)
		simnet.Sleep(10 * time.Second)
		require.Len(t, d.Stats().Peers, 2)
		for _, p := range peers {
			if connectedTo(d, p.Addr()) {
				p.Depart()
			}
		}
		simnet.Sleep(3 * time.Second)
		require.Len(t, d.Stats().Peers, 2, "others take their place")
	})
}
