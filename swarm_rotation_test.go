package torrent

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/wire"
)

// A client has more downloads than connections. Peers that take just enough to earn their places hold all of them, one of each download.
// Another download has its turn.
func TestConnectionsGoAroundAllDownloads(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil)
		c.MaxPeers = 3
		var all []*Download
		for k := range 5 {
			content := newSimRepeating(uint64(k+1), 4*blockSize, 1024*blockSize)
			all = append(all, simSeed(t, c, content))
			p := simpeer.New("slow", n.NewHost(fmt.Sprintf("%d.0.0.1", 66+k), 0, 1000, time.Millisecond), 6881, content.truth, simpeer.Script{Takes: true})
			p.Have = bits.New(content.NumPieces())
			require.NoError(t, p.Arrive())
			defer p.Stop()
			p.Call(1, netaddr.Of(c.Addr()), time.Second)
			simnet.Sleep(time.Second)
		}
		simnet.Sleep(2 * time.Minute)
		require.Equal(t, []int{1, 1, 1, 0, 0}, connected(all...), "they earn their places")
		content := newSimContent(9, blockSize, 64*blockSize)
		seed := honestSeed(t, n, content)
		defer seed.Stop()
		d := simLeech(t, c, content)
		d.discovery.found(peerlist.FromPEX, "", seed.Addr())
		simnet.Sleep(2 * peerlist.TurnoverEvery)
		require.True(t, d.Stats().Complete, "%d connections", connected(all...))
	})
}

// A client has all connections that it may have, three of them to slow peers of one network. A download whose only seed is of that
// network, too, is not kept from it.
func TestNeighboursOfASeed(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil)
		c.MaxPeers = 20
		for k := range c.MaxPeers {
			content := newSimRepeating(uint64(k/2+1), 4*blockSize, 1024*blockSize)
			if k%2 == 0 {
				simSeed(t, c, content)
			}
			ip := fmt.Sprintf("%d.0.0.1", 100+k)
			if k < 3 {
				ip = fmt.Sprintf("90.0.0.%d", 10+k)
			}
			p := simpeer.New("slow", n.NewHost(ip, 0, 1000, time.Millisecond), 6881, content.truth, simpeer.Script{Takes: true})
			p.Have = bits.New(content.NumPieces())
			require.NoError(t, p.Arrive())
			defer p.Stop()
			p.Call(1, netaddr.Of(c.Addr()), time.Second)
		}
		simnet.Sleep(2 * time.Minute)
		content := newSimContent(99, blockSize, 64*blockSize)
		seed := honestSeed(t, n, content)
		defer seed.Stop()
		require.True(t, netip.MustParsePrefix("90.0.0.0/24").Contains(seed.Addr().Addr()))
		d := simLeech(t, c, content)
		d.discovery.found(peerlist.FromTracker, "", seed.Addr())
		simnet.Sleep(2 * peerlist.TurnoverEvery)
		require.True(t, d.Stats().Complete)
	})
}

// Magnet links have all connections that a client may have, to peers that send false metadata slowly. A download has its turn.
func TestMagnetLinksMakeRoomForADownload(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		defer simnet.Sleep(2 * time.Minute) // until the liars have noticed the end
		me := n.NewHost("81.0.0.1", 0, 0, time.Millisecond)
		c := simClient(t, me, nil)
		c.MaxPeers = 3
		require.NoError(t, c.Open())
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for k := range 3 {
			content := newSimResolvable(t, 1000+k, false)
			nowhere := netip.MustParseAddrPort("89.0.0.1:1")
			go content.Magnet().Resolve(ctx, &Options{Client: c, Peers: []netip.AddrPort{nowhere}})
			simnet.Sleep(time.Second)
			host := n.NewHost(fmt.Sprintf("%d.0.0.1", 66+k), 0, 0, time.Millisecond)
			conn, err := host.Dial(t.Context(), "tcp", me.Addr(6881).String())
			require.NoError(t, err)
			go (&metadataSpeaker{metadataScript: metadataScript{
				stays: true, delay: 14 * time.Second,
				size:   func(int64) int64 { return 30 << 20 },
				answer: func(int, []byte) []byte { return make([]byte, wire.MetadataBlock) },
			}, content: content, host: host}).speak(conn)
		}
		simnet.Sleep(2 * time.Minute)
		require.EqualValues(t, 3, c.peers.Load())
		content := newSimContent(9, blockSize, 64*blockSize)
		seed := honestSeed(t, n, content)
		defer seed.Stop()
		d := simLeech(t, c, content)
		d.discovery.found(peerlist.FromPEX, "", seed.Addr())
		simnet.Sleep(2 * peerlist.TurnoverEvery)
		require.True(t, d.Stats().Complete, "%+v", c.Stats().Resolving)
	})
}
