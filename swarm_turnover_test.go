package torrent

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/wire"
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

// patientSeed listens as a seed with many peers, which unchokes a newcomer for half a minute after others had their turns.
func patientSeed(ctx context.Context, t *testing.T, h *simnet.Host, content *simContent, wait time.Duration) netip.AddrPort {
	l, err := h.Listen("tcp", ":6881")
	require.NoError(t, err)
	context.AfterFunc(ctx, func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serveInTurn(ctx, conn, content, wait)
		}
	}()
	return h.Addr(6881)
}

func serveInTurn(ctx context.Context, conn net.Conn, content *simContent, wait time.Duration) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	hello := wire.Handshake{InfoHash: content.infoHash, PeerID: [20]byte{1}}
	hello.SetFast()
	conn.Write(wire.AppendSimple(hello.Append(nil), wire.HaveAll))
	if _, err := io.ReadFull(conn, make([]byte, wire.HandshakeSize)); err != nil {
		return
	}
	requests := make(chan wire.Message)
	go func() {
		defer cancel()
		for r := wire.NewReader(conn, 1<<10); ; {
			m, err := r.Next()
			if err != nil {
				return
			}
			if m.ID == wire.Request {
				select {
				case requests <- m:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	alive, turn := time.NewTicker(time.Minute), time.NewTimer(wait)
	defer alive.Stop()
	for open := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-alive.C:
			conn.Write(wire.AppendKeepAlive(nil))
		case <-turn.C:
			if open = !open; open {
				conn.Write(wire.AppendSimple(nil, wire.Unchoke))
				turn.Reset(30 * time.Second)
			} else {
				conn.Write(wire.AppendSimple(nil, wire.Choke))
				turn.Reset(wait)
			}
		case m := <-requests:
			if open {
				conn.Write(append(wire.AppendPieceHeader(nil, m.Index, m.Begin, m.Length), content.truth.Block(m.Index, m.Begin, m.Length)...))
			} else {
				conn.Write(wire.AppendReject(nil, m.Index, m.Begin, m.Length))
			}
		}
	}
}

// A seed has so many peers that it is our turn only after seven minutes. It keeps its place until then, although all others earn theirs with
// little, more of them wait for a place, and a peer names addresses without end where nobody is.
func TestSeedThatLetsUsWait(t *testing.T) {
	skipUnderRace(t, true)
	amongGivers(t, func(ctx context.Context, t *testing.T, n *simnet.Network) {
		content := newSimRepeating(1, 4*blockSize, 8192*blockSize)
		c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil)
		d := simFewPlaces(t, c, content, 20)
		for k := range 30 {
			g := &giver{n.NewHost(fmt.Sprintf("%d.0.%d.1", 100+k%10, k), 0, 0, 10*time.Millisecond), content, 24 * time.Hour}
			d.discovery.found(peerlist.FromTracker, "tracker", g.listen(ctx, t))
			go g.callEvery(ctx, netaddr.Of(c.Addr()), 30*time.Second)
		}
		simnet.Sleep(30 * time.Second)
		d.discovery.found(peerlist.FromTracker, "tracker", patientSeed(ctx, t, n.NewHost("30.7.0.1", 1e6, 0, 20*time.Millisecond), content, 7*time.Minute))
		for k := 0; k < 2*60 && d.Stats().Downloaded < 32<<20; k++ {
			for i := range 100 {
				d.discovery.found(peerlist.FromPEX, "100.0.0.0/16", netip.AddrPortFrom(netip.AddrFrom4([4]byte{140, byte(k), byte(i), 1}), 6881))
			}
			simnet.Sleep(10 * time.Second)
		}
		require.Greater(t, d.Stats().Downloaded, int64(32<<20))
	})
}
