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

// A giver dials a client again and again, and stays so long each time. It gives just enough to earn its place all the while.
type giver struct {
	host    *simnet.Host
	content *simContent
	stays   time.Duration
}

// call dials until ctx ends.
func (g *giver) call(ctx context.Context, to netip.AddrPort) { g.callEvery(ctx, to, time.Millisecond) }

func (g *giver) callEvery(ctx context.Context, to netip.AddrPort, pause time.Duration) {
	for ctx.Err() == nil {
		if conn, err := g.host.Dial(ctx, "tcp", to.String()); err == nil {
			g.speak(ctx, conn)
		}
		time.Sleep(pause)
	}
}

func (g *giver) speak(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithTimeout(ctx, g.stays)
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer conn.Close()
	hello := wire.Handshake{InfoHash: g.content.infoHash, PeerID: [20]byte(fmt.Appendf(nil, "%20v", g.host))}
	hello.SetFast()
	conn.Write(hello.Append(nil))
	if _, err := io.ReadFull(conn, make([]byte, wire.HandshakeSize)); err != nil {
		return
	}
	conn.Write(wire.AppendSimple(wire.AppendSimple(nil, wire.HaveAll), wire.Unchoke))
	began, gave := time.Now(), int64(0)
	for r := wire.NewReader(conn, 1<<10); ; {
		m, err := r.Next()
		if err != nil {
			return
		}
		if m.ID != wire.Request {
			continue
		}
		if earned := began.Add(time.Duration(gave/peerlist.EarnedBytes) * 110 * time.Second); time.Now().Before(earned) {
			select {
			case <-time.After(time.Until(earned)):
			case <-ctx.Done():
				return
			}
		}
		gave += int64(m.Length)
		conn.Write(append(wire.AppendPieceHeader(nil, m.Index, m.Begin, m.Length), g.content.truth.Block(m.Index, m.Begin, m.Length)...))
	}
}

// takenByGivers starts a download whose ten places givers take, one after another.
func takenByGivers(ctx context.Context, t *testing.T, n *simnet.Network, content *simContent, stay, pause time.Duration, addr func(k int) string) *Download {
	c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil)
	d := simFewPlaces(t, c, content, 10)
	for k := range 10 {
		go (&giver{n.NewHost(addr(k), 0, 0, time.Millisecond), content, stay}).call(ctx, netaddr.Of(c.Addr()))
		simnet.Sleep(pause)
	}
	simnet.Sleep(2 * time.Minute)
	require.Len(t, d.Stats().Peers, 10)
	return d
}

// amongGivers runs a test with givers, which end with the context.
func amongGivers(t *testing.T, f func(ctx context.Context, t *testing.T, n *simnet.Network)) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		ctx, cancel := context.WithCancel(t.Context())
		defer simnet.Sleep(time.Minute)
		defer cancel()
		f(ctx, t, n)
	})
}

// besieged runs a test of a download beside givers, which end with the context: once with a late seed that is dialled, and once with one
// that dials.
func besieged(t *testing.T, f func(ctx context.Context, t *testing.T, n *simnet.Network, dials bool)) {
	for name, dials := range map[string]bool{"dialled": false, "dials": true} {
		t.Run(name, func(t *testing.T) {
			amongGivers(t, func(ctx context.Context, t *testing.T, n *simnet.Network) { f(ctx, t, n, dials) })
		})
	}
}

// lateSeed has a seed come that dials a download once a minute, or that a tracker names to it.
func lateSeed(t *testing.T, host *simnet.Host, content *simContent, d *Download, dials bool) *simpeer.Peer {
	seed := simpeer.New("seed", host, 6881, content.truth, simpeer.Script{Fast: true})
	require.NoError(t, seed.Arrive())
	if dials {
		seed.Call(1, netaddr.Of(d.client.Addr()), time.Minute)
	} else {
		d.discovery.found(peerlist.FromTracker, "", seed.Addr())
	}
	return seed
}

// Peers of as many networks as there are places earn these, leave before they have had them for long, and are back at once. A seed still gets
// in, whoever dials.
func TestGiversThatComeBackAtOnce(t *testing.T) {
	besieged(t, func(ctx context.Context, t *testing.T, n *simnet.Network, dials bool) {
		content := newSimRepeating(1, 4*blockSize, 8192*blockSize)
		d := takenByGivers(ctx, t, n, content, 200*time.Second, 20*time.Second, func(k int) string { return fmt.Sprintf("%d.0.0.1", 100+k) })
		seed := lateSeed(t, n.NewHost("90.0.0.1", 1e6, 0, 30*time.Millisecond), content, d, dials)
		defer seed.Stop()
		for k := 0; k < 15 && !connectedTo(d, seed.Addr()); k++ {
			simnet.Sleep(time.Minute)
		}
		require.True(t, connectedTo(d, seed.Addr()))
	})
}

// Peers that share the address of the only seed, behind a router or by the same VPN, have as many connections as may be to an address, and give
// just enough to keep them. The seed still gets in, whoever dials.
func TestAddressThatIsFull(t *testing.T) {
	besieged(t, func(ctx context.Context, t *testing.T, n *simnet.Network, dials bool) {
		content := newSimRepeating(1, 4*blockSize, 1024*blockSize)
		c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil)
		d := simLeech(t, c, content)
		simnet.Sleep(time.Second)
		router := n.NewHost("90.0.0.1", 1e6, 0, 30*time.Millisecond)
		for range peerlist.MaxPerAddress {
			go (&giver{router, content, time.Hour}).call(ctx, netaddr.Of(c.Addr()))
			simnet.Sleep(time.Second)
		}
		simnet.Sleep(2 * time.Minute)
		require.Len(t, d.Stats().Peers, peerlist.MaxPerAddress)
		seed := lateSeed(t, router, content, d, dials)
		defer seed.Stop()
		for k := 0; k < 15 && !d.Stats().Complete; k++ {
			simnet.Sleep(time.Minute)
		}
		require.True(t, d.Stats().Complete)
	})
}

// Peers of two networks earn all places. Others, of the network of the only seed, dial again and again, and are always there when a newcomer
// of it may try for a place. The seed gets in nevertheless, whoever dials.
func TestSeedBesideNeighboursThatTry(t *testing.T) {
	besieged(t, func(ctx context.Context, t *testing.T, n *simnet.Network, dials bool) {
		content := newSimRepeating(1, 4*blockSize, 8192*blockSize)
		d := takenByGivers(ctx, t, n, content, 24*time.Hour, time.Second, func(k int) string { return fmt.Sprintf("%d.0.%d.1", 100+k%2, k/2) })
		for k := range 3 {
			stays := time.Duration(7+k) * time.Minute
			go (&giver{n.NewHost(fmt.Sprintf("90.0.%d.1", 1+k), 0, 0, time.Millisecond), content, stays}).callEvery(ctx, netaddr.Of(d.client.Addr()), 100*time.Millisecond)
		}
		simnet.Sleep(83 * time.Second)
		seed := lateSeed(t, n.NewHost("90.0.0.1", 1e6, 0, 30*time.Millisecond), content, d, dials)
		defer seed.Stop()
		for k := 0; k < 10 && !d.Stats().Complete; k++ {
			simnet.Sleep(time.Minute)
		}
		require.True(t, d.Stats().Complete)
	})
}

// Peers of eight times as many networks as there are places give just enough to keep these, and dial each second: some stay, some leave before
// they have had a place for long. A seed that dials once a minute has its turn.
func TestNetworksThatWaitTakeTurns(t *testing.T) {
	for name, stays := range map[string]time.Duration{"stay": 24 * time.Hour, "leave": 50 * time.Second} {
		t.Run(name, func(t *testing.T) {
			amongGivers(t, func(ctx context.Context, t *testing.T, n *simnet.Network) {
				content := newSimRepeating(1, 4*blockSize, 4096*blockSize)
				c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil)
				d := simFewPlaces(t, c, content, 2)
				for k := range 16 {
					go (&giver{n.NewHost(fmt.Sprintf("%d.0.0.1", 120+k), 0, 0, time.Millisecond), content, stays}).callEvery(ctx, netaddr.Of(c.Addr()), time.Second)
				}
				simnet.Sleep(83*time.Second + 500*time.Millisecond)
				seed := lateSeed(t, n.NewHost("90.0.0.1", 1e6, 0, 30*time.Millisecond), content, d, true)
				defer seed.Stop()
				for k := 0; k < 12 && !d.Stats().Complete; k++ {
					simnet.Sleep(time.Minute)
				}
				require.True(t, d.Stats().Complete)
			})
		})
	}
}

// Neighbours of the only seed, more than there are places, dial each second, and give just enough to keep these. The seed dials once a minute
// and gets in soon, whether they are of its own prefix or of a few others of its network.
func TestSeedBesideNeighboursThatDial(t *testing.T) {
	for name, addr := range map[string]func(k int) string{
		"of its /24":           func(k int) string { return fmt.Sprintf("90.0.0.%d", 2+k) },
		"of four /24s":         func(k int) string { return fmt.Sprintf("90.0.%d.%d", 1+k%4, 1+k) },
		"of another /64":       func(k int) string { return fmt.Sprintf("2001:db8:0:%x::1", 2+k) },
		"of four /48s of IPv6": func(k int) string { return fmt.Sprintf("2001:db8:%x:%x::1", 1+k%4, k) },
	} {
		t.Run(name, func(t *testing.T) {
			skipUnderRace(t, name != "of its /24")
			amongGivers(t, func(ctx context.Context, t *testing.T, n *simnet.Network) {
				content := newSimRepeating(1, 4*blockSize, 4096*blockSize)
				c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil)
				d := simFewPlaces(t, c, content, 10)
				for k := range 30 {
					go (&giver{n.NewHost(addr(k), 0, 0, 10*time.Millisecond), content, 24 * time.Hour}).callEvery(ctx, netaddr.Of(c.Addr()), time.Second)
				}
				simnet.Sleep(6 * time.Minute)
				ip := "90.0.0.1"
				if netip.MustParseAddr(addr(0)).Is6() {
					ip = "2001:db8::1"
				}
				seed := lateSeed(t, n.NewHost(ip, 1e6, 0, 30*time.Millisecond), content, d, true)
				defer seed.Stop()
				for k := 0; k < 6 && !d.Stats().Complete; k++ {
					simnet.Sleep(time.Minute)
				}
				require.True(t, d.Stats().Complete)
			})
		})
	}
}
