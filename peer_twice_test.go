package torrent

import (
	"context"
	"fmt"
	"iter"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
)

// Two clients dial each other at about the same time, for a download or a magnet link. Both keep the same one of the two
// connections, whichever of them began.
func TestBothDialAtOnce(t *testing.T) {
	for _, kinds := range [][2]string{{"download", "download"}, {"download", "link"}, {"link", "download"}, {"link", "link"}} {
		for _, ahead := range []int{-40, -15, -11, -8, -5, 0, 5, 8, 11, 15, 40} { // in milliseconds
			t.Run(fmt.Sprint(kinds, ahead), func(t *testing.T) {
				simnet.Run(t, func(t *testing.T, n *simnet.Network) {
					content := newSimResolvable(t, 2500, false) // whose metadata takes half a second
					hosts := []*simnet.Host{n.NewHost("80.0.0.1", 100e3, 0, 10*time.Millisecond), n.NewHost("81.0.0.1", 100e3, 0, 10*time.Millisecond)}
					ctx, cancel := context.WithCancel(t.Context())
					var resolving sync.WaitGroup
					defer func() { cancel(); resolving.Wait() }()
					var live [2]func() int
					for k, kind := range kinds {
						c := simClient(t, hosts[k], nil)
						o := &Options{Client: c, Seed: true, Storage: newSimStorage(content).open}
						o.FindPeers = func(context.Context, Hash) iter.Seq[netip.AddrPort] {
							return func(yield func(netip.AddrPort) bool) {
								time.Sleep(2*time.Second + time.Duration((2*k-1)*ahead)*time.Millisecond)
								yield(hosts[1-k].Addr(6881))
							}
						}
						if kind == "download" {
							d, err := content.Start(ctx, o)
							require.NoError(t, err)
							live[k] = func() int { return len(d.Stats().Peers) }
							continue
						}
						require.NoError(t, c.Open())
						resolving.Go(func() { content.Magnet().Resolve(ctx, o) })
						live[k] = func() int { return c.Stats().Resolving[0].Peers }
					}
					simnet.Sleep(2300 * time.Millisecond)
					require.Equal(t, []int{1, 1}, []int{live[0](), live[1]()})
				})
			})
		}
	}
}

// A neighbour at the address of the only seed dials us first, and says that it has the seed's peer id. It keeps the seed out for
// some minutes at most, whether it gives nothing, gives a little, or comes again and again, and whichever id is lower.
func TestSeedWhoseIDANeighbourTakes(t *testing.T) {
	for name, script := range map[string]simpeer.Script{
		"gives nothing":  {Never: simpeer.Unchokes},
		"gives a little": {Drip: 10 * time.Millisecond},
		"comes and goes": {Never: simpeer.Unchokes, LeaveAfter: 15 * time.Second},
	} {
		for _, id := range []byte{1, 0xff} {
			t.Run(fmt.Sprint(name, id), func(t *testing.T) {
				simnet.Run(t, func(t *testing.T, n *simnet.Network) {
					content := newSimContent(1, blockSize, 64*blockSize)
					c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil)
					d := simLeech(t, c, content)
					simnet.Sleep(time.Second)
					router := n.NewHost("90.0.0.1", 1e6, 0, time.Millisecond)
					says := func(hello []byte) []byte {
						hello[len(hello)-20] = id
						return hello
					}
					script.Handshake = says
					neighbour := simpeer.New("neighbour", router, 6881, content.truth, script)
					defer neighbour.Stop()
					neighbour.Call(1, netaddr.Of(c.Addr()), 100*time.Millisecond)
					simnet.Sleep(30 * time.Second)
					seed := simpeer.New("seed", router, 6881, content.truth, simpeer.Script{Handshake: says})
					require.NoError(t, seed.Arrive())
					defer seed.Stop()
					d.discovery.found(peerlist.FromTracker, "tracker", seed.Addr())
					simnet.Sleep(5 * time.Minute)
					require.True(t, d.Stats().Complete)
				})
			})
		}
	}
}

// A connection replaces another one to the same peer even if the peer would get no other place: at its end the other one is closed.
func TestReplacedWhereThereIsNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := crowded(t, plainTorrent(10), 0)
		now := time.Now()
		dialled := newRepeating()
		defer dialled.leave()
		require.True(t, d.addPeer(&connection{Conn: dialled, addr: netip.MustParseAddrPort("90.0.0.1:6881")}, peerlist.FromTracker))
		d.mu.Lock()
		defer d.mu.Unlock()
		d.swarm.places.PeerLeftIdle(netip.MustParseAddr("90.0.0.1"), now)
		waiting := netip.MustParseAddrPort("91.0.0.1:6881")
		d.discovery.candidates.Add(waiting, peerlist.FromTracker, "", now)
		defer d.discovery.candidates.Ban(waiting) // before it is dialled
		dials := &connection{addr: netip.MustParseAddrPort("90.0.0.1:7000"), incoming: true}
		require.True(t, d.admitConnection(dials, now), "its id is lower")
		require.Equal(t, errTwice, d.swarm.peers[0].closing)
		d.client.leftPeer(netip.Addr{})
	})
}
