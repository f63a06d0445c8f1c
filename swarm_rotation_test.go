package torrent

import (
	"context"
	"fmt"
	"io"
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

// A client has more downloads than connections. Peers dial downloads without a connection many times a second, each from a fresh address.
// A download that starts later has its turn to dial.
func TestStarvingDownloadBesidePeersThatDial(t *testing.T) {
	skipUnderRace(t, true)
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		me := n.NewHost("81.0.0.1", 0, 0, time.Millisecond)
		c := simClient(t, me, nil)
		c.MaxPeers = 3
		var hellos [][]byte
		for k := range 6 {
			content := newSimRepeating(uint64(k+1), blockSize, 4*blockSize)
			simSeed(t, c, content)
			hello := wire.Handshake{InfoHash: content.infoHash, PeerID: [20]byte{1}}
			hellos = append(hellos, hello.Append(nil))
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer simnet.Sleep(time.Minute)
		defer cancel()
		go func() {
			for k := 0; ctx.Err() == nil; k++ {
				from := n.NewHost(fmt.Sprintf("%d.%d.%d.1", 101+k%100, k/100%200, k/20_000), 0, 0, time.Millisecond)
				go func() {
					conn, err := from.Dial(ctx, "tcp", me.Addr(6881).String())
					if err != nil {
						return
					}
					defer conn.Close()
					defer context.AfterFunc(ctx, func() { conn.Close() })()
					conn.Write(hellos[k%len(hellos)])
					io.Copy(io.Discard, conn)
				}()
				time.Sleep(10 * time.Millisecond)
			}
		}()
		simnet.Sleep(2 * time.Minute)
		content := newSimContent(9, blockSize, 64*blockSize)
		seed := simpeer.New("seed", n.NewHost("90.0.0.1", 1e6, 0, 30*time.Millisecond), 6881, content.truth, simpeer.Script{Fast: true})
		require.NoError(t, seed.Arrive())
		defer seed.Stop()
		d := simLeech(t, c, content)
		d.discovery.found(peerlist.FromTracker, "", seed.Addr())
		for k := 0; k < 5 && !d.Stats().Complete; k++ {
			simnet.Sleep(time.Minute)
		}
		require.True(t, d.Stats().Complete)
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
