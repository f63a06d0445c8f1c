package torrent

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
)

// Peers of many networks, a few more than there are places, give just enough to keep these, and can be dialled. Those that make room for
// others do not take the next places again before a seed that was named meanwhile.
func TestThoseThatMadeRoomComeLast(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimRepeating(1, 4*blockSize, 8192*blockSize)
		c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil)
		d := simFewPlaces(t, c, content, 20)
		for k := range 23 {
			p := simpeer.New("crowd", n.NewHost(fmt.Sprintf("%d.0.%d.1", 100+k%10, k), 700, 0, time.Millisecond), 6881, content.truth, simpeer.Script{Fast: true, Eager: true})
			require.NoError(t, p.Arrive())
			defer p.Stop()
			d.discovery.found(peerlist.FromTracker, "", p.Addr())
		}
		simnet.Sleep(20 * time.Minute)
		require.Len(t, d.Stats().Peers, 20)
		seed := honestSeed(t, n, content)
		defer seed.Stop()
		d.discovery.found(peerlist.FromTracker, "", seed.Addr())
		simnet.Sleep(peerlist.TurnoverEvery + time.Minute)
		s := d.Stats()
		require.True(t, s.Complete || s.DownloadRate > 1e5 && connectedTo(d, seed.Addr()), "%+v", s)
	})
}

// Peers of as many networks as there are places give just enough to keep these, and come back at once when they are dropped. A seed
// still gets in, whoever dials.
func TestNetworksOfOnePeerEach(t *testing.T) {
	for name, dials := range map[string]bool{"dialled": false, "dials": true} {
		t.Run(name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := newSimRepeating(1, 4*blockSize, 8192*blockSize)
				c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil)
				d := simFewPlaces(t, c, content, 10)
				for k := range 10 {
					p := simpeer.New("crowd", n.NewHost(fmt.Sprintf("%d.0.0.1", 100+k), 700, 0, time.Millisecond), 6881, content.truth, simpeer.Script{Fast: true, Eager: true})
					require.NoError(t, p.Arrive())
					defer p.Stop()
					p.Call(1, netaddr.Of(c.Addr()), 100*time.Millisecond)
				}
				simnet.Sleep(4 * time.Minute)
				require.Len(t, d.Stats().Peers, 10)
				seed := lateSeed(t, n.NewHost("90.0.0.1", 1e6, 0, time.Second), content, d, dials)
				defer seed.Stop()
				for k := 0; k < 15 && d.Stats().DownloadRate < 1e5; k++ {
					simnet.Sleep(time.Minute)
				}
				require.Greater(t, d.Stats().DownloadRate, 1e5, "%d peers", len(d.Stats().Peers))
			})
		})
	}
}
