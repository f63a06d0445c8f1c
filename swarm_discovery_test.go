package torrent

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/simnet/simtracker"
	"github.com/shoal-go/torrent/internal/wire"
	"github.com/stretchr/testify/require"
)

// A user's FindPeers finds peers for a magnet link and for the download that follows. It is called again while no
// peer is connected.
func TestFindPeers(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimResolvable(t, 4, false)
		seed := n.NewHost("80.0.0.2", 0, 0, 0)
		var asked []time.Duration
		began := time.Now()
		o := &Options{
			Client: simClient(t, n.NewHost("80.0.0.1", 0, 0, 0), nil),
			FindPeers: func(ctx context.Context, h Hash) iter.Seq[netip.AddrPort] {
				require.Equal(t, content.infoHash, h)
				if asked = append(asked, time.Since(began)); len(asked) == 1 {
					return nil
				}
				return func(yield func(netip.AddrPort) bool) { yield(seed.Addr(6881)) }
			},
		}
		go func() {
			simnet.Sleep(90 * time.Second) // the first search finds nothing, the second a host without a client
			simSeed(t, simClient(t, seed, nil), content)
		}()
		m := &Magnet{InfoHash: content.infoHash}
		tor, err := m.Resolve(t.Context(), o)
		require.NoError(t, err)
		require.Equal(t, []time.Duration{0, time.Minute, 2 * time.Minute}, asked[:3])

		asked, began = nil, time.Now()
		o.Storage = newSimStorage(content).open
		o.Seed = true
		d, err := tor.Start(t.Context(), o)
		require.NoError(t, err)
		_, err = d.Wait()
		require.NoError(t, err)
		simnet.Sleep(16 * time.Minute)
		require.Equal(t, []time.Duration{0, 15 * time.Minute}, asked, "with a peer there is no hurry")
	})
}

// A tracker may name a peer by its host.
func TestTrackerNamesAHost(t *testing.T) {
	dir := writeContent(t, map[string]int{"a": 100_000})
	plain, err := Create(dir, nil)
	require.NoError(t, err)
	seed := &Client{NoDHT: true, NoUTP: true, Listen: "127.0.0.1:0"}
	t.Cleanup(func() { seed.Close() })
	d, err := plain.Start(t.Context(), &Options{Client: seed, Dir: filepath.Dir(dir), Seed: true})
	require.NoError(t, err)
	_, err = d.Wait()
	require.NoError(t, err)

	announced := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "d8:intervali1800e5:peersld2:ip9:peer.test4:porti%deeee", seed.port())
	}))
	t.Cleanup(announced.Close)
	tor, err := newTorrent(plain.info, outer{trackers: [][]string{{announced.URL + "/announce"}}})
	require.NoError(t, err)
	client := &Client{NoDHT: true, NoUTP: true, Listen: "127.0.0.1:0"}
	t.Cleanup(func() { client.Close() })
	var lookups atomic.Int32
	client.hooks.lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
		require.Equal(t, "peer.test", host)
		lookups.Add(1)
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	files, err := tor.DownloadAll(t.Context(), &Options{Client: client})
	require.NoError(t, err)
	require.NoError(t, files.Close())
	require.EqualValues(t, 1, lookups.Load())

	// Dial may use a proxy, so names are not looked up beside it.
	client.Dial = new(net.Dialer).DialContext
	require.Nil(t, client.lookUpForStrangers())
}

func TestTrackersHearOfCompletionBeforeTheStop(t *testing.T) {
	for _, c := range []struct {
		name string
		seed bool
		want []string
	}{
		{"a download that ends when it is complete", false, []string{"started", "completed", "stopped"}},
		{"a download that goes on sharing", true, []string{"started", "completed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := newSimContent(1, 64<<10, 1<<20)
				content.trackers = [][]string{{"http://10.0.9.9/announce"}}
				tracker := simtracker.New(1)
				seed := simpeer.New("seed", n.NewHost("80.0.0.1", 0, 0, 10*time.Millisecond), 6881, content.truth, simpeer.Script{})
				require.NoError(t, seed.Arrive())
				defer seed.Stop()
				tracker.Add(seed.Addr())
				client := simClient(t, n.NewHost("80.0.0.2", 0, 0, 10*time.Millisecond), tracker)
				d, err := content.Start(t.Context(), &Options{Client: client, Seed: c.seed, Storage: newSimStorage(content).open})
				require.NoError(t, err)
				<-d.Done()
				simnet.Sleep(time.Second)
				var events []string
				for _, a := range tracker.Announces() {
					events = append(events, a.Event)
				}
				require.Equal(t, c.want, events)
				require.Zero(t, tracker.Announces()[1].Left)
			})
		})
	}
}

// A private torrent that goes on to another tracker drops all peers but the user's (BEP 27), whichever side made
// the connection.
func TestPrivateTrackerSwitchDropsPeers(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 4*blockSize)
		content.private = true
		content.trackers = [][]string{{"http://old.sim/announce"}, {"http://new.sim/announce"}}
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		listen := func(ip string) *metadataSpeaker {
			return speakMetadata(t, n.NewHost(ip, 0, 0, 0), content, metadataScript{})
		}
		named, user := listen("80.0.0.2"), listen("80.0.0.3")
		tracker := simtracker.New(1)
		var broken atomic.Bool
		tracker.Answer = func(req *http.Request) (*http.Response, error) {
			if req.URL.Host == "new.sim" {
				return simtracker.Response(req, 200, []byte("d8:intervali300ee")), nil
			} else if broken.Load() {
				return simtracker.Response(req, 500, nil), nil
			}
			return simtracker.Response(req, 200, []byte("d8:intervali120e5:peers6:\x50\x00\x00\x02\x1a\xe1e")), nil
		}
		d := simLeech(t, simClient(t, us, tracker), content, user.addr())
		simnet.Sleep(time.Second)
		s := speak(t, n.NewHost("80.0.0.4", 0, 0, 0), content, us.Addr(6881), speech{extended: true})
		s.sayHello(wire.ExtHandshake{P: 77})
		silent := speak(t, n.NewHost("80.0.0.5", 0, 0, 0), content, us.Addr(6881), speech{})
		simnet.Sleep(time.Second)
		require.Len(t, d.Stats().Peers, 4)
		broken.Store(true)
		simnet.Sleep(2 * time.Minute)
		require.True(t, s.hungUp())
		require.True(t, silent.hungUp())
		require.False(t, connectedTo(d, named.addr()))
		require.True(t, connectedTo(d, user.addr()))
		require.Equal(t, 1, d.Stats().Known)
	})
}

// withLAN is a client that looks for peers in a local network.
func withLAN(t *testing.T, lan *simnet.LAN, h *simnet.Host) *Client {
	c := simClient(t, h, nil)
	c.LocalDiscovery, c.hooks.listenMulticast = true, lan.Listener(h)
	return c
}

func TestLSDBringsPeersTogether(t *testing.T) {
	for _, six := range []bool{false, true} {
		t.Run(fmt.Sprintf("IPv6 %t", six), func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				lan := new(simnet.LAN)
				ips := []string{"192.168.0.1", "192.168.0.2"}
				if six {
					ips = []string{"fd00::1", "fd00::2"}
				}
				content := newSimContent(1, 64<<10, 1<<20)
				simSeed(t, withLAN(t, lan, n.NewHost(ips[0], 0, 0, time.Millisecond)), content)
				simnet.Sleep(2 * time.Minute)
				us := withLAN(t, lan, n.NewHost(ips[1], 0, 0, time.Millisecond))
				files, err := content.DownloadAll(t.Context(), &Options{Client: us, Storage: newSimStorage(content).open})
				require.NoError(t, err)
				files.Close()
				require.Less(t, n.Now(), 2*time.Minute+5*time.Second, "a new peer is heard, and answered")
			})
		})
	}
}

func TestLSDResolves(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		lan, content := new(simnet.LAN), newSimResolvable(t, 1000, false)
		simSeed(t, withLAN(t, lan, n.NewHost("192.168.0.1", 0, 0, time.Millisecond)), content)
		simnet.Sleep(2 * time.Minute)
		m := &Magnet{InfoHash: content.infoHash}
		got, err := m.Resolve(t.Context(), &Options{Client: withLAN(t, lan, n.NewHost("192.168.0.2", 0, 0, time.Millisecond))})
		require.NoError(t, err)
		require.Equal(t, content.info, got.info)
		require.Less(t, n.Now(), 2*time.Minute+5*time.Second)
	})
}

// Private torrents are not announced in the local network (BEP 27). The others are, as long as they are
// downloaded.
func TestLSDOfPrivateTorrents(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		lan := new(simnet.LAN)
		client := withLAN(t, lan, n.NewHost("192.168.0.1", 0, 0, 0))
		first, private := newSimContent(1, 64<<10, 1<<20), newSimContent(2, 64<<10, 1<<20)
		private.private = true
		d, p := simLeech(t, client, first), simLeech(t, client, private)
		simnet.Sleep(time.Second)
		said := lan.Take()
		require.Len(t, said, 1)
		require.Contains(t, said[0], "\r\nPort: 6881\r\nInfohash: "+first.infoHash.String()+"\r\ncookie: ")

		group := netip.MustParseAddrPort("239.192.152.143:6771")
		s, err := lan.Listener(n.NewHost("192.168.0.2", 0, 0, 0))("udp4", group)
		require.NoError(t, err)
		defer s.Close()
		announce := fmt.Sprintf("BT-SEARCH * HTTP/1.1\r\nPort: 1\r\nInfohash: %s\r\nInfohash: %s\r\n\r\n\r\n", first.infoHash, private.infoHash)
		_, err = s.WriteTo([]byte(announce), net.UDPAddrFromAddrPort(group))
		require.NoError(t, err)
		simnet.Sleep(time.Second)
		require.Equal(t, 1, d.Stats().Known)
		require.Zero(t, p.Stats().Known)

		require.NoError(t, d.Close())
		simnet.Sleep(time.Minute)
		lan.Take()
		simnet.Sleep(10 * time.Minute)
		require.Empty(t, lan.Take())
	})
}

func TestLSDWithoutGroupOrListener(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		lan, content := new(simnet.LAN), newSimContent(1, 64<<10, 1<<20)
		none := simClient(t, n.NewHost("192.168.0.3", 0, 0, 0), nil)
		none.LocalDiscovery = true
		none.hooks.listenMulticast = func(string, netip.AddrPort) (net.PacketConn, error) { return nil, errors.New("no multicast here") }
		simSeed(t, none, content)
		_, err := new(Magnet).Resolve(t.Context(), &Options{Client: none})
		require.ErrorIs(t, err, ErrUnsupported)

		deaf := withLAN(t, lan, n.NewHost("192.168.0.1", 0, 0, 0))
		deaf.NoListen = true
		simLeech(t, deaf, content)
		simnet.Sleep(time.Minute)
		require.Empty(t, lan.Take(), "no peer could connect")
		simSeed(t, withLAN(t, lan, n.NewHost("192.168.0.2", 0, 0, 0)), content)
		simnet.Sleep(10 * time.Second)
		for d := range deaf.Downloads() {
			require.True(t, d.Stats().Complete)
		}
	})
}

// A peer that is named in both swarms of a hybrid is met in the first, for it may know version 1 alone.
func TestPeerOfBothSwarmsIsMetInTheFirst(t *testing.T) {
	for _, firstLast := range []bool{false, true} {
		found(t, newSimVersion(Hybrid, false, 1, 64<<10, 1e6), func(t *testing.T, m *simMeeting) {
			p := m.meet(t, 1e6, simpeer.Script{OnlyV1: true})
			m.client = simStart(t.Context(), t, m.net.NewHost("81.0.0.1", 0, 0, 10*time.Millisecond), m.content, nil, &m.options, nil)
			in := m.content.infoHashes().all()
			if firstLast {
				slices.Reverse(in)
			}
			m.client.Pause() // nothing is dialled before both are heard
			for _, h := range in {
				m.client.discovery.foundIn(h, peerlist.FromTracker, "http://t.example/", p.Addr())
			}
			m.client.Resume()
			simWait(time.Hour, m.client)
			require.NoError(t, m.client.compare(nil))
			require.Less(t, m.client.took, 10*time.Second)
		})
	}
}

// A source names a thousand addresses a minute that do not answer. What another one names is dialled soon all the same, be it
// trusted less: another tracker, the DHT, or a peer of another network.
func TestNamersTakeTurns(t *testing.T) {
	for _, tc := range []struct {
		liar, honest     peerlist.Source
		liarBy, honestBy string
	}{
		{peerlist.FromTracker, peerlist.FromTracker, "http://dead", "http://live"},
		{peerlist.FromTracker, peerlist.FromDHT, "http://dead", "82.0.0.0/16"},
		{peerlist.FromDHT, peerlist.FromDHT, "81.0.0.0/16", "82.0.0.0/16"}, // nodes of these networks
		{peerlist.FromDHT, peerlist.FromPEX, "81.0.0.0/16", "82.0.0.0/16"},
		{peerlist.FromPEX, peerlist.FromPEX, "81.0.0.0/16", "82.0.0.0/16"},
	} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimContent(1, blockSize, 16*blockSize)
			d := simLeech(t, simClient(t, n.NewHost("80.0.0.1", 0, 0, 0), nil), content)
			p := simpeer.New("honest", n.NewHost("90.0.0.1", 1e6, 0, time.Millisecond), 6881, content.truth, simpeer.Script{Fast: true})
			require.NoError(t, p.Arrive())
			defer p.Stop()
			k := 0
			lie := func() {
				var dead []netip.AddrPort
				for range 1000 {
					dead = append(dead, netip.MustParseAddrPort(fmt.Sprintf("[2001:db8:0:%x::1]:6881", k)))
					k++
				}
				d.discovery.found(tc.liar, tc.liarBy, dead...)
			}
			for range 3 { // after which, and another, many were dropped
				lie()
				simnet.Sleep(20 * time.Second)
			}
			d.discovery.found(tc.honest, tc.honestBy, p.Addr())
			lie()
			simnet.Sleep(15 * time.Second)
			require.True(t, d.Stats().Complete, "%v beside %v", tc.honest, tc.liar)
		})
	}
}

// A download that no peer can reach, and that has no other source, looks in the DHT again soon while it has no peer.
func TestHungryDownloadLooksInTheDHTAgain(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 4*blockSize)
		router := dhtNetwork(t, n, 20)
		us := n.NewHost("85.0.0.1", 0, 0, 10*time.Millisecond)
		us.Firewall()
		d := simLeech(t, dhtClient(t, us, router), content)
		simnet.Sleep(90 * time.Second)
		simSeed(t, dhtClient(t, n.NewHost("80.0.0.1", 0, 0, 10*time.Millisecond), router), content)
		simnet.Sleep(3 * time.Minute)
		require.True(t, d.Stats().Complete)

		before := d.client.Stats().DHT.Lookups
		simnet.Sleep(5 * time.Minute)
		require.Less(t, d.client.Stats().DHT.Lookups-before, int64(5), "with a peer there is no hurry")
	})
}

// A network that is lost behind the router for hours, which this machine does not see, is used again within minutes once it is back,
// also by a download that only a tracker finds peers for.
func TestNetworkLostBehindTheRouter(t *testing.T) {
	for _, url := range []string{httpTrackerURL, udpTrackerURL} {
		for _, lost := range []time.Duration{5 * time.Minute, 70 * time.Minute, 210 * time.Minute} {
			t.Run(fmt.Sprint(url, " ", lost), func(t *testing.T) {
				skipUnderRace(t, lost != 70*time.Minute)
				simnet.Run(t, func(t *testing.T, n *simnet.Network) {
					w := newWorld(t, n)
					us := n.NewHost("85.0.0.1", 0, 5e3, 10*time.Millisecond)
					c := w.bound(t, newSpy(us))
					c.NoDHT = true
					d, err := w.content.Start(t.Context(), &Options{Client: c, Storage: newSimStorage(w.content).open, Trackers: [][]string{{url}}})
					require.NoError(t, err)
					simnet.Sleep(20 * time.Second)
					require.NotZero(t, d.Stats().Verified)
					us.Unplug()
					simnet.Sleep(lost)
					require.False(t, d.Stats().Complete)
					us.Plug()
					simnet.Sleep(12 * time.Minute)
					require.True(t, d.Stats().Complete)
				})
			})
		}
	}
}
