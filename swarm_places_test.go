package torrent

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/wire"
)

// honestSeed has a seed of the content come to a network that no crowd is in.
func honestSeed(t *testing.T, n *simnet.Network, content *simContent) *simpeer.Peer {
	p := simpeer.New("seed", n.NewHost("90.0.0.1", 1e6, 0, time.Millisecond), 6881, content.truth, simpeer.Script{Fast: true})
	require.NoError(t, p.Arrive())
	return p
}

// Each download of a client has its share of the connections, and too few are left over for another one. A crowd of one network
// that holds all connections of a download makes room for a seed that is to be dialled.
func TestCrowdInTheShareOfADownload(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil)
		c.MaxPeers = 20
		var all []*Download
		var content *simContent
		for k := range 3 {
			content = newSimContent(uint64(k+1), blockSize, 64*blockSize)
			all = append(all, simLeech(t, c, content))
			for i := range 6 { // of 20/3
				p := simpeer.New("crowd", n.NewHost(fmt.Sprintf("66.%d.0.%d", k, i+1), 1e6, 0, time.Millisecond), 6881, content.truth, keepsPlace)
				require.NoError(t, p.Arrive())
				defer p.Stop()
				p.Call(1, netaddr.Of(c.Addr()), 5*time.Second)
			}
		}
		simnet.Sleep(2 * time.Minute)
		require.Equal(t, []int{6, 6, 6}, connected(all...))
		seed := honestSeed(t, n, content)
		defer seed.Stop()
		all[2].discovery.found(peerlist.FromPEX, "", seed.Addr())
		simnet.Sleep(5 * time.Minute)
		require.True(t, all[2].Stats().Complete, "%d connections", connected(all...))
	})
}

// Peers that connected first never answer hash requests, so that one of them would always be asked again before the seed. The
// seed still gets its turn. Without its hashes no block of version 2 could be requested.
func TestPeersSilentAboutHashes(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimVersion(V2, true, 1, 16<<10, 1<<20)
		d := simLeech(t, simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil), content)
		come := func(ip string, script simpeer.Script) *simpeer.Peer {
			p := simpeer.New("peer", n.NewHost(ip, 1e6, 0, time.Millisecond), 6881, content.truth, script)
			require.NoError(t, p.Arrive())
			d.AddPeers(p.Addr())
			return p
		}
		for k := range 20 {
			defer come(fmt.Sprintf("66.0.0.%d", k+1), simpeer.Script{Fast: true, Never: simpeer.AnswersHashes | simpeer.Answers}).Stop()
		}
		simnet.Sleep(time.Second)
		defer come("90.0.0.1", simpeer.Script{Fast: true}).Stop()
		simnet.Sleep(2 * time.Minute)
		require.True(t, d.Stats().Complete, "%+v", d.Stats())
	})
}

// Peers that come back at once hold all connections of a client for one download. A seed that dials the client for another one gets
// a place that these gave back.
func TestPlacesGivenBackAreForOthers(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		const places = 4
		c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil)
		c.MaxPeers = places
		crowded, content := newSimContent(1, blockSize, 64*blockSize), newSimContent(2, blockSize, 64*blockSize)
		simLeech(t, c, crowded)
		d := simLeech(t, c, content)
		for k := range places {
			p := simpeer.New("crowd", n.NewHost(fmt.Sprintf("%d.1.0.1", 100+k), 1e6, 0, time.Millisecond), 6881, crowded.truth, keepsPlace)
			require.NoError(t, p.Arrive())
			defer p.Stop()
			p.Call(1, netaddr.Of(c.Addr()), 100*time.Millisecond)
		}
		simnet.Sleep(10 * time.Second)
		seed := honestSeed(t, n, content)
		defer seed.Stop()
		seed.Call(1, netaddr.Of(c.Addr()), 7*time.Second)
		simnet.Sleep(time.Minute)
		require.True(t, d.Stats().Complete)
	})
}

// A crowd of one network wants nothing but places. It has two peers for each torrent that a client shares, so that it is no crowd in
// any of them, but has almost all connections. The only torrent that is being downloaded still gets many of them.
func TestCrowdOfManyDownloads(t *testing.T) {
	for _, tc := range []struct {
		addr          string
		later, called bool
		takes         bool // just enough to earn its places
	}{
		{"66.0.0.%d", true, false, false},
		{"66.0.0.%d", false, false, false},
		{"66.0.0.%d", false, true, false},
		{"66.0.0.%d", false, false, true},
		{"2001:db8:0:%x::1", false, false, false},
	} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			const shared = 9
			c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil)
			c.MaxPeers = 2 * (shared + 1)
			content := newSimRepeating(100, 4*blockSize, 1024*blockSize)
			d := simLeech(t, c, content)
			seeds := slowSeeds(t, n, 1, c.MaxPeers, content)
			if tc.later {
				d.discovery.found(peerlist.FromTracker, "", seeds...)
				simnet.Sleep(time.Minute)
			}
			for k := range shared {
				content := newSimContent(uint64(k+1), blockSize, 64*blockSize)
				script := wantsNothing
				if tc.takes {
					script = simpeer.Script{Fast: true, Takes: true}
				}
				to := simSeed(t, c, content)
				for i := range 2 {
					p := simpeer.New("crowd", n.NewHost(fmt.Sprintf(tc.addr, 2*k+i+1), 1e6, 2400, time.Millisecond), 6881, content.truth, script)
					p.Have = bits.New(content.NumPieces())
					require.NoError(t, p.Arrive())
					defer p.Stop()
					if tc.called {
						to.discovery.found(peerlist.FromPEX, "", p.Addr())
					} else {
						p.Call(1, netaddr.Of(c.Addr()), time.Second)
					}
				}
			}
			simnet.Sleep(time.Minute)
			d.discovery.found(peerlist.FromTracker, "", seeds...)
			simnet.Sleep(time.Minute)
			require.GreaterOrEqual(t, connected(d)[0], 8, "%+v", tc) // half, but for the reserve
		})
	}
}

// A peer of a network that has too many of the connections of a client gets no place, so none makes room for it. Each such peer used to
// end a connection and was refused then.
func TestNoPeerMakesRoomInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := crowded(t, plainTorrent(10), 0)
		idle := newRepeating()
		defer idle.leave()
		require.True(t, d.addPeer(&connection{Conn: idle, addr: netip.MustParseAddrPort("90.0.0.1:6881")}, peerlist.FromTracker))
		simnet.Sleep(2 * time.Minute)
		d.mu.Lock()
		defer d.mu.Unlock()
		c, now := d.client, time.Now()
		c.MaxPeers = 8
		link := new(resolver)
		c.registry.resolving[link] = struct{}{}
		defer delete(c.registry.resolving, link)
		for k := range byte(7) {
			crowd := netip.AddrFrom4([4]byte{66, 0, 0, k})
			require.True(t, c.joinedPeer(0, crowd, now))
			defer c.leftPeer(crowd)
		}
		require.False(t, d.admitConnection(&connection{addr: netip.MustParseAddrPort("66.0.0.9:6881"), incoming: true}, now))
		require.NoError(t, d.swarm.peers[0].closing)
	})
}

// wantsNothing is how those behave that have nothing, and are interested in everything, but request nothing.
var wantsNothing = simpeer.Script{
	Never: simpeer.Unchokes,
	Opening: func(c *simpeer.Content) []byte {
		return wire.AppendSimple(wire.AppendBitfield(nil, make([]byte, c.NumPieces()/8)), wire.Interested)
	},
	Noise: []simpeer.Noise{simpeer.Noises()[13]}, NoiseEvery: 100 * time.Second,
}

// A client has more downloads than connections. A crowd of one network, which sends nothing, has one connection of each of the
// first downloads. The others still get their turn.
func TestMoreDownloadsThanConnections(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil)
		c.MaxPeers = 3
		var all []*Download
		var content *simContent
		for k := range 6 {
			content = newSimContent(uint64(k+1), blockSize, 64*blockSize)
			all = append(all, simLeech(t, c, content))
			p := simpeer.New("crowd", n.NewHost(fmt.Sprintf("66.0.0.%d", k+1), 1e6, 0, time.Millisecond), 6881, content.truth, keepsPlace)
			require.NoError(t, p.Arrive())
			defer p.Stop()
			p.Call(1, netaddr.Of(c.Addr()), 5*time.Second)
			simnet.Sleep(time.Second)
		}
		require.Equal(t, []int{1, 1, 1, 0, 0, 0}, connected(all...))
		simnet.Sleep(time.Minute)
		seed := honestSeed(t, n, content)
		defer seed.Stop()
		all[5].discovery.found(peerlist.FromPEX, "", seed.Addr())
		simnet.Sleep(4 * time.Minute)
		require.True(t, all[5].Stats().Complete, "%d connections", connected(all...))
	})
}

// A source names thousands of addresses without a peer, so that dials are always under way. They do not take a place from a seed
// that dials the client.
func TestDialsInVainTakeNoPlaces(t *testing.T) {
	for _, most := range []int{1, 10, 20} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimContent(1, blockSize, 64*blockSize)
			c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil)
			c.MaxPeers = most
			d := simLeech(t, c, content)
			simnet.Sleep(time.Second)
			for k := range 3000 {
				d.discovery.found(peerlist.FromPEX, "66.0.0.0/16", netip.AddrPortFrom(netip.AddrFrom4([4]byte{66, byte(k >> 8), byte(k), 1}), 1))
			}
			simnet.Sleep(time.Second)
			seed := honestSeed(t, n, content)
			defer seed.Stop()
			seed.Call(1, netaddr.Of(c.Addr()), time.Minute)
			simnet.Sleep(30 * time.Second)
			require.True(t, d.Stats().Complete, "with %d connections", most)
		})
	}
}

// A source names addresses at which there is no peer for one torrent, so that its dials take all connections that are left. The
// seed that the user names for another one has its turn.
func TestDialsInVainKeepNoTorrentFromDialling(t *testing.T) {
	for _, most := range []int{1, 10, 20} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil)
			c.MaxPeers = most
			content := newSimContent(1, blockSize, 64*blockSize)
			d, other := simLeech(t, c, content), simLeech(t, c, newSimContent(2, blockSize, 64*blockSize))
			for k := range 2000 {
				other.discovery.found(peerlist.FromPEX, "66.0.0.0/16", netip.AddrPortFrom(netip.AddrFrom4([4]byte{66, byte(k >> 8), byte(k), 1}), 1))
				if k < 40 {
					simnet.Sleep(437 * time.Millisecond) // so that dials do not end at once
				}
			}
			seed := honestSeed(t, n, content)
			defer seed.Stop()
			d.AddPeers(seed.Addr())
			simnet.Sleep(30 * time.Second)
			require.True(t, d.Stats().Complete, "with %d connections", most)
		})
	}
}

// A crowd of one network holds all places, and gives just enough to keep them. None of its prefixes has more than its share. A
// seed that dials the client still gets in.
func TestNetworkThatEarnsItsPlaces(t *testing.T) {
	for _, tc := range []struct {
		places int
		addr   func(k int) string
	}{
		{3, func(k int) string { return fmt.Sprintf("66.0.0.%d", k+1) }},
		{5, func(k int) string { return fmt.Sprintf("66.0.%d.%d", k/3, k%3+1) }},
		{5, func(k int) string { return fmt.Sprintf("2001:db8:1:%x::%x", k/3, k%3+1) }},
		{20, func(k int) string { return fmt.Sprintf("2001:db8:%x:%x::1", k/6, k%6+1) }},
	} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimRepeating(1, 4*blockSize, 8192*blockSize)
			c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil)
			c.MaxPeers = tc.places
			d := simLeech(t, c, content)
			simnet.Sleep(time.Second)
			for k := range tc.places {
				p := simpeer.New("crowd", n.NewHost(tc.addr(k), 600, 0, time.Millisecond), 6881, content.truth, simpeer.Script{Fast: true})
				require.NoError(t, p.Arrive())
				defer p.Stop()
				p.Call(1, netaddr.Of(c.Addr()), 5*time.Second)
			}
			simnet.Sleep(5 * time.Minute)
			require.Equal(t, []int{tc.places}, connected(d))
			seed := honestSeed(t, n, content)
			defer seed.Stop()
			seed.Call(1, netaddr.Of(c.Addr()), 5*time.Second)
			simnet.Sleep(10 * time.Second)
			require.True(t, connectedTo(d, seed.Addr()), "%d places, %s", tc.places, tc.addr(0))
		})
	}
}

// Crowds of fewer networks than there are places hold all of these, and give just enough to keep them. A seed gets in, whether it
// calls or is called, and whoever sets the bound.
func TestFewNetworksThatEarnAllPlaces(t *testing.T) {
	for _, tc := range []struct {
		places           int
		ofClient, called bool
		again            time.Duration
		addr             func(k int) string
	}{
		{5, true, true, 5 * time.Second, func(k int) string { return fmt.Sprintf("%d.0.%d.1", 66+k/2, k%2) }},
		{5, true, false, 100 * time.Millisecond, func(k int) string { return fmt.Sprintf("%d.0.%d.1", 66+k/2, k%2) }},
		{5, false, false, 5 * time.Second, func(k int) string { return fmt.Sprintf("2001:db%d:%x::1", k/2, k%2) }},
		{80, false, false, 5 * time.Second, func(k int) string { return fmt.Sprintf("%d.0.%d.%d", 66+k%2, k/2%4, 1+k/8) }},
	} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimRepeating(1, 4*blockSize, 8192*blockSize)
			c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil)
			o := Options{Client: c, MaxPeers: tc.places, Storage: newSimStorage(content).open}
			if tc.ofClient {
				c.MaxPeers, o.MaxPeers = tc.places, 0
			}
			d, err := content.Start(t.Context(), &o)
			require.NoError(t, err)
			simnet.Sleep(time.Second)
			for k := range tc.places {
				p := simpeer.New("crowd", n.NewHost(tc.addr(k), 800, 0, time.Millisecond), 6881, content.truth, simpeer.Script{Fast: true})
				require.NoError(t, p.Arrive())
				defer p.Stop()
				p.Call(1, netaddr.Of(c.Addr()), tc.again)
			}
			simnet.Sleep(4 * time.Minute)
			require.Equal(t, []int{tc.places}, connected(d))
			seed := honestSeed(t, n, content)
			defer seed.Stop()
			if tc.called {
				d.discovery.found(peerlist.FromTracker, "", seed.Addr())
			} else {
				seed.Call(1, netaddr.Of(c.Addr()), 5*time.Second)
			}
			simnet.Sleep(90 * time.Second)
			require.True(t, d.Stats().DownloadRate > 1e5 && connectedTo(d, seed.Addr()), "%+v", tc)
		})
	}
}

// A peer that the user named keeps its place however the connection to it came about: it may have dialled us itself from that
// address, or have been introduced, or been named only later. To say that it listens there is not enough.
func TestNamedPeerKeepsItsPlace(t *testing.T) {
	named, near := netip.MustParseAddrPort("90.0.0.1:6881"), netip.MustParseAddrPort("90.0.0.1:7000")
	for _, tc := range []struct {
		name  string
		conn  connection
		from  peerlist.Source
		later bool // it is named once it is connected
		keep  bool
	}{
		{name: "dialled", conn: connection{addr: named}, from: peerlist.FromUser, keep: true},
		{name: "introduced by a relay", conn: connection{addr: named}, from: peerlist.FromPEX, keep: true},
		{name: "dialled us", conn: connection{addr: named, incoming: true}, from: peerlist.FromIncoming, keep: true},
		{name: "named later", conn: connection{addr: named}, from: peerlist.FromTracker, later: true, keep: true},
		{name: "says that it listens there", conn: connection{addr: near, incoming: true}, from: peerlist.FromIncoming},
		{name: "is at another port", conn: connection{addr: near}, from: peerlist.FromTracker},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := crowded(t, plainTorrent(10), 0)
				if !tc.later {
					d.AddPeers(named)
				}
				speaker := newRepeating()
				defer speaker.leave()
				k := tc.conn
				k.Conn = speaker
				k.theirs.SetExtended()
				k.theirs.PeerID[0] = 1
				require.True(t, d.addPeer(&k, tc.from))
				hello := wire.ExtHandshake{P: int(named.Port())}
				speaker.say(wire.AppendExtended(nil, 0, hello.Append(nil)), 1)
				synctest.Wait()
				if tc.later {
					d.AddPeers(named)
				}
				d.mu.Lock()
				defer d.mu.Unlock()
				if k.incoming {
					require.Equal(t, named, d.swarm.peers[0].ext.listens)
				}
				require.Equal(t, tc.keep, d.worths(time.Now())[0].Keep)
			})
		})
	}
}

// Peers hold all places, give nothing, and each leaves before it has to make room, to come back at once. A seed that dials the
// client still gets in.
func TestPeersThatLeaveAndComeBack(t *testing.T) {
	for _, ofClient := range []bool{false, true} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			const places = 5
			content := newSimContent(1, blockSize, 64*blockSize)
			c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil)
			o := Options{Client: c, MaxPeers: places, Storage: newSimStorage(content).open}
			if ofClient {
				c.MaxPeers, o.MaxPeers = places, 0
			}
			d, err := content.Start(t.Context(), &o)
			require.NoError(t, err)
			simnet.Sleep(time.Second)
			script := keepsPlace
			script.LeaveAfter = 55 * time.Second
			for k := range places {
				p := simpeer.New("crowd", n.NewHost(fmt.Sprintf("%d.1.0.1", 100+k), 0, 0, time.Millisecond), 6881, content.truth, script)
				require.NoError(t, p.Arrive())
				defer p.Stop()
				p.Go(func() {
					for again := time.Duration(0); p.Wait(again); {
						began := time.Now()
						p.Dial(netaddr.Of(c.Addr()))
						if again = time.Millisecond; time.Since(began) < time.Second {
							again = 5 * time.Second // it was refused
						}
					}
				})
				simnet.Sleep(8 * time.Second)
			}
			require.Equal(t, []int{places}, connected(d))
			simnet.Sleep(time.Minute)
			seed := honestSeed(t, n, content)
			defer seed.Stop()
			seed.Call(1, netaddr.Of(c.Addr()), 7*time.Second)
			simnet.Sleep(2 * time.Minute)
			require.True(t, d.Stats().Complete, "places of the client: %t", ofClient)
		})
	}
}

// Crowds of fewer networks than there are places hold all of these. Each peer leaves before it has to make room, and another comes
// from an address of the same network that was not seen before. A seed that dials the client still gets in.
func TestFreshAddressesOfFewNetworks(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		const places = 5
		content := newSimContent(1, blockSize, 64*blockSize)
		c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil)
		d := simFewPlaces(t, c, content, places)
		script := keepsPlace
		script.LeaveAfter = 55 * time.Second
		var crowd sync.WaitGroup
		defer crowd.Wait()
		for k := range places {
			crowd.Go(func() {
				for i := range 6 {
					p := simpeer.New("crowd", n.NewHost(fmt.Sprintf("%d.1.%d.%d", 100+k/2, k, i+1), 0, 0, time.Millisecond), 6881, content.truth, script)
					p.Dial(netaddr.Of(c.Addr()))
					p.Stop()
				}
			})
			simnet.Sleep(8 * time.Second)
		}
		simnet.Sleep(time.Minute)
		require.Equal(t, []int{places}, connected(d))
		seed := honestSeed(t, n, content)
		defer seed.Stop()
		seed.Call(1, netaddr.Of(c.Addr()), 7*time.Second)
		simnet.Sleep(2 * time.Minute)
		require.True(t, d.Stats().Complete)
	})
}

// The user named a peer that has the only place and chokes before any request can reach it. Another one that the user names still gets
// its turn, also if others are found.
func TestPeersThatTheUserNamesTakeTurns(t *testing.T) {
	for _, others := range []int{0, 5} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimContent(1, blockSize, 64*blockSize)
			c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil)
			c.MaxPeers = 1
			idle := simpeer.New("idle", n.NewHost("66.0.0.1", 1e6, 0, 100*time.Millisecond), 6881, content.truth, simpeer.Script{Flap: 131 * time.Millisecond})
			require.NoError(t, idle.Arrive())
			defer idle.Stop()
			d := simLeech(t, c, content, idle.Addr())
			simnet.Sleep(10 * time.Second)
			require.Equal(t, []int{1}, connected(d))
			for k := range others {
				d.discovery.found(peerlist.FromPEX, "", netip.AddrPortFrom(netip.AddrFrom4([4]byte{66, byte(k), 9, 1}), 1))
			}
			seed := honestSeed(t, n, content)
			defer seed.Stop()
			d.AddPeers(seed.Addr())
			simnet.Sleep(3 * time.Minute)
			require.True(t, d.Stats().Complete, "beside %d others: %+v", others, d.Stats())
		})
	}
}
