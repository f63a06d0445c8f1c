package torrent

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/portmap"
	"github.com/shoal-go/torrent/internal/simnet"
)

// waysTable is the table of doc.go: what each field does to each kind of traffic.
func waysTable(t *testing.T) (columns []string, rows []string, cells map[string]map[string]string) {
	text, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	_, table, _ := strings.Cut(string(text), "// # Ways out\n")
	gap := regexp.MustCompile(` {2,}`)
	cells = make(map[string]map[string]string)
	for line := range strings.SplitSeq(table, "\n") {
		line, ok := strings.CutPrefix(line, "//\t")
		if !ok {
			if columns != nil {
				break
			}
			continue
		}
		if columns == nil {
			columns = strings.Fields(line)
			continue
		}
		row := gap.Split(line, -1)
		require.Len(t, row, len(columns)+1, line)
		rows = append(rows, row[0])
		cells[row[0]] = make(map[string]string)
		for i, c := range columns {
			cells[row[0]][c] = row[i+1]
		}
	}
	return columns, rows, cells
}

// deaf is a peer that does not answer, so that it is tried by all ways.
func (w *world) deaf() netip.AddrPort { return netip.AddrPortFrom(w.seed.Addr(), 7777) }

// linger has a client at work for as long as the test lasts: with a download that does not get far, and a link that is
// not resolved.
func (w *world) linger(t *testing.T, c *Client) (d *Download, stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	d, err := w.content.Start(ctx, &Options{
		Client: c, Storage: newSimStorage(w.content).open, DownloadLimit: rate.NewLimiter(10, 16<<10),
		Trackers: [][]string{{httpTrackerURL}, {udpTrackerURL}}, Peers: []netip.AddrPort{w.deaf()}, WebSeeds: []string{"http://web.sim/content"},
	})
	require.NoError(t, err)
	var resolving sync.WaitGroup
	resolving.Go(func() {
		m := &Magnet{InfoHash: Hash{1}, Peers: []string{"peer.sim:6881"}}
		m.Resolve(ctx, &Options{Client: c})
	})
	return d, func() { cancel(); resolving.Wait(); d.Close() }
}

// signs are what a spy counts of each kind of traffic. Packets through a proxy show themselves there.
func (w *world) signs(kind string) (bySpy, byProxy []string) {
	seed, trackers := w.seed.String(), w.names["udp.sim"].String()
	switch kind {
	case "TCP to peers":
		return []string{"dial " + seed}, []string{"tcp " + seed}
	case "TCP from peers":
		return []string{"listen 85.", "listen :"}, nil
	case "uTP":
		return []string{"uTP packet " + w.deaf().String()}, []string{"udp " + w.deaf().String()}
	case "DHT":
		return []string{"DHT packet 81."}, []string{"udp 81."}
	case "UDP trackers":
		return []string{"packet " + trackers}, []string{"udp " + trackers + ":6969"}
	case "HTTP trackers":
		return []string{"dial " + trackers + ":80", "GET http.sim"}, []string{"tcp " + trackers + ":80"}
	case "web seeds":
		a := w.names["web.sim"].String()
		return []string{"dial " + a, "GET web.sim"}, []string{"tcp " + a}
	case "local discovery":
		return []string{"multicast"}, nil
	case "port mapping":
		return []string{"packet 85.0.0.254:"}, nil
	case "names (DNS)":
		return []string{"look up"}, []string{"udp " + w.names["router.sim"].String(), "tcp " + trackers}
	}
	return nil, nil
}

// A countingTransport counts requests.
type countingTransport struct {
	s *spy
	http.RoundTripper
}

func (c countingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	c.s.note("GET %s", r.URL.Host)
	return c.RoundTripper.RoundTrip(r)
}

// TestWaysOut walks the table of doc.go: for each field, a whole client has each kind of traffic go by the way that the
// table says, and by no other.
func TestWaysOut(t *testing.T) {
	columns, rows, cells := waysTable(t)
	require.Equal(t, []string{"Dial", "ListenPacket", "HTTPClient", "Proxy", "Bind", "Allow"}, columns)
	require.Len(t, rows, 10)
	for _, field := range append([]string{"none"}, columns...) {
		t.Run(field, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				w := newWorld(t, n)
				host, gateway := n.NewHost("85.0.0.1", 0, 0, 10*time.Millisecond), n.NewHost("85.0.0.254", 0, 0, 0)
				natpmpRouter(t, gateway, netip.MustParseAddr("87.0.0.1"), 7000)
				system, own := newSpy(host), newSpy(host) // own is of the field
				c := w.bound(t, system)
				c.hooks.lookup = func(ctx context.Context, name string) ([]netip.Addr, error) {
					system.note("look up %s", name)
					return w.lookup(ctx, name)
				}
				c.hooks.gateways = func() ([]portmap.Gateway, error) {
					return []portmap.Gateway{{Router: gateway.IP(), Local: host.IP()}}, nil
				}
				var mu sync.Mutex
				var asked []netip.Addr
				switch field {
				case "Dial":
					c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
						return own.dial(ctx, netip.Addr{}, network, addr)
					}
				case "ListenPacket":
					c.ListenPacket = own.listenPacket
				case "HTTPClient":
					dial := w.dialNames(newSpy(host).dial)
					transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
						return dial(ctx, netip.Addr{}, network, addr)
					}}
					t.Cleanup(transport.CloseIdleConnections)
					c.HTTPClient = &http.Client{Transport: countingTransport{own, transport}}
				case "Proxy":
					c.Proxy = proxyURL(t, "socks5h://84.0.0.1")
				case "Bind":
					c.Bind = host.IP()
				case "Allow":
					c.Allow = func(a netip.Addr) bool {
						mu.Lock()
						defer mu.Unlock()
						asked = append(asked, a)
						return a != w.seed.Addr() && a.As4()[0] != 81
					}
				}
				d, stop := w.linger(t, c)
				defer stop()
				stranger, err := n.NewHost("80.0.0.1", 0, 0, 0).Dial(t.Context(), "tcp", "85.0.0.1:6881") // from where the seed is
				if err == nil {
					defer stranger.Close()
				}
				simnet.Sleep(time.Minute)

				for _, kind := range rows {
					cell := cells[kind][field]
					bySpy, byProxy := w.signs(kind)
					bySystem, byOwn := system.seen(bySpy...), own.seen(bySpy...)
					through := slices.ContainsFunc(w.proxy.Asked(), func(what string) bool {
						return slices.ContainsFunc(byProxy, func(p string) bool { return strings.HasPrefix(what, p) })
					})
					switch cell {
					case "its":
						require.NotEmpty(t, byOwn, kind)
						require.Empty(t, bySystem, kind)
					case "off":
						require.Empty(t, bySystem, kind)
						require.Empty(t, byOwn, kind)
						require.False(t, through, kind)
					case "through":
						require.Empty(t, bySystem, kind)
						require.True(t, through, "%s: %v", kind, w.proxy.Asked())
					case "asked":
						if kind == "TCP from peers" {
							require.NotEmpty(t, bySystem, kind)
							require.NoError(t, err)
							stranger.SetReadDeadline(time.Now().Add(time.Second))
							_, err := stranger.Read(make([]byte, 1))
							require.Error(t, err)
							require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "it hangs up")
						} else {
							require.Empty(t, bySystem, kind)
						}
						require.Contains(t, asked, w.seed.Addr())
					case "bound", "-", "":
						require.NotEmpty(t, bySystem, "%s: %v", kind, system.seen(""))
						require.Empty(t, byOwn, kind)
						require.False(t, through, kind)
					default:
						t.Fatalf("%s: %q", kind, cell)
					}
				}
				switch field {
				case "Bind":
					require.Equal(t, []string{"bound 85.0.0.1"}, system.seen("bound"))
					for _, what := range system.seen("listen ") {
						require.Contains(t, what, " 85.0.0.1:")
					}
					require.Empty(t, system.seen("multicast udp6", "listen packet udp6", "dial [", "packet ["))
				case "Proxy":
					system.requireOnly(t, "dial 84.0.0.1:1080", "packet 84.0.0.1:", "uTP packet 84.0.0.1:", "SYN 84.0.0.1:", "listen packet")
				case "Dial":
					require.Empty(t, system.seen("listen packet", "packet", "multicast"), "no UDP at all")
					require.ErrorIs(t, c.Stats().UDPErr, ErrUnsupported)
				case "Allow":
					require.Empty(t, d.Stats().Peers)
					require.Zero(t, d.Stats().Known)
				}
			})
		})
	}
}

// setAddrs gives the machine other addresses.
func (s *spy) setAddrs(addrs ...netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addrs = addrs
}

// reset forgets what was counted.
func (s *spy) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.counts)
}

// bound is a client that uses all that there is, but looks up names by itself.
func (w *world) bound(t *testing.T, s *spy) *Client {
	c := w.client(t, s)
	c.hooks.lookup, c.hooks.dial = w.lookup, w.dialNames(c.hooks.dial)
	return c
}

// Everything is bound to one address. If it goes, the traffic stops, and comes back with it.
func TestBind(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		w := newWorld(t, n)
		s := newSpy(n.NewHost("85.0.0.1", 0, 30e3, 10*time.Millisecond))
		c := w.bound(t, s)
		c.Bind = s.host.IP()
		d, err := w.content.Start(t.Context(), &Options{Client: c, Seed: true, Storage: newSimStorage(w.content).open, Trackers: [][]string{{httpTrackerURL}, {udpTrackerURL}}})
		require.NoError(t, err)
		d.AddPeers(netip.MustParseAddrPort("[2001:db8::1]:6881"))
		simnet.Sleep(time.Second)
		require.NotEmpty(t, d.Stats().Peers)
		require.Equal(t, "85.0.0.1:6881", c.Addr().String())
		require.Empty(t, s.seen("dial [", "listen packet udp6", "packet [", "multicast udp6"), "the other family")
		require.Contains(t, s.seen("listen"), "listen 85.0.0.1:6881")

		verified := d.Stats().Verified
		require.Less(t, verified, d.Stats().Wanted)
		s.setAddrs()
		simnet.Sleep(2 * time.Second)
		s.reset()
		require.Empty(t, d.Stats().Peers)
		_, err = n.NewHost("86.0.0.1", 0, 0, 0).Dial(t.Context(), "tcp", "85.0.0.1:6881")
		require.Error(t, err, "nothing listens")
		simnet.Sleep(time.Hour)
		require.Empty(t, s.seen("dial", "packet"))
		require.Less(t, d.Stats().Verified, d.Stats().Wanted)

		s.setAddrs(s.host.IP())
		simnet.Sleep(time.Minute)
		require.True(t, d.Stats().Complete)
		require.Equal(t, "85.0.0.1:6881", c.Addr().String())
		conn, err := n.NewHost("86.0.0.2", 0, 0, 0).Dial(t.Context(), "tcp", "85.0.0.1:6881")
		require.NoError(t, err)
		conn.Close()
		require.NotEmpty(t, s.seen("packet"))
	})
}

func TestBindOptions(t *testing.T) {
	for _, c := range []*Client{
		{Bind: netip.MustParseAddr("0.0.0.0")},
		{Bind: netip.MustParseAddr("239.1.1.1")},
		{Bind: netip.MustParseAddr("127.0.0.1"), Listen: "127.0.0.2:0"},
		{Bind: netip.MustParseAddr("127.0.0.1"), Listen: "[::1]:0"},
		{Bind: netip.MustParseAddr("203.0.113.77")},
	} {
		require.Error(t, c.Open())
	}
	c := &Client{Bind: netip.MustParseAddr("127.0.0.1"), NoDHT: true}
	require.NoError(t, c.Open())
	defer c.Close()
	require.Equal(t, "127.0.0.1", c.Addr().(*net.TCPAddr).IP.String())
}

// A client recovers from sleep and changes of the network within a minute, without any action of the program.
func TestMachineChanges(t *testing.T) {
	other := netip.MustParseAddr("85.0.0.9")
	for _, tc := range []struct {
		name   string
		change func(s *spy, wall *atomic.Int64)
		drops  bool
	}{
		{"it sleeps", func(_ *spy, wall *atomic.Int64) { wall.Add(int64(time.Hour)) }, true},
		{"it naps", func(_ *spy, wall *atomic.Int64) { wall.Add(int64(time.Minute)) }, false},
		{"another address", func(s *spy, _ *atomic.Int64) { s.setAddrs(other) }, true},
		{"one more address", func(s *spy, _ *atomic.Int64) { s.setAddrs(s.host.IP(), other) }, false},
		{"IPv6 comes", func(s *spy, _ *atomic.Int64) { s.setAddrs(s.host.IP(), netip.MustParseAddr("2001:db8::1")) }, false},
		{"no network for an hour", func(s *spy, _ *atomic.Int64) {
			s.setAddrs(netip.MustParseAddr("127.0.0.1"))
			simnet.Sleep(time.Hour)
			s.setAddrs(s.host.IP())
		}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				w := newWorld(t, n)
				gateway := n.NewHost("85.0.0.254", 0, 0, 0)
				held := natpmpRouter(t, gateway, netip.MustParseAddr("85.0.0.1"), 7000)
				s := newSpy(n.NewHost("85.0.0.1", 0, 0, 10*time.Millisecond))
				c := w.bound(t, s)
				var wall atomic.Int64
				c.hooks.wall = func() time.Time { return time.Now().Add(time.Duration(wall.Load())) }
				c.hooks.gateways = func() ([]portmap.Gateway, error) {
					s.note("gateways")
					return []portmap.Gateway{{Router: gateway.IP(), Local: s.host.IP()}}, nil
				}
				d, err := w.content.Start(t.Context(), &Options{Client: c, DownloadLimit: rate.NewLimiter(10, 16<<10), Storage: newSimStorage(w.content).open, Trackers: [][]string{{httpTrackerURL}, {udpTrackerURL}}})
				require.NoError(t, err)
				simnet.Sleep(10 * time.Minute)
				require.Equal(t, 2, held())
				require.Len(t, d.Stats().Peers, 1)
				before := c.Stats().DHT.Lookups
				byHTTP, byUDP := w.asked()
				d.mu.Lock()
				first := d.swarm.peers[0].number
				d.mu.Unlock()
				s.reset()
				tc.change(s, &wall)
				if tc.name == "no network for an hour" {
					byHTTP, byUDP = w.asked()
					before = c.Stats().DHT.Lookups
				}
				simnet.Sleep(time.Minute)
				nowHTTP, nowUDP := w.asked()
				require.Greater(t, nowHTTP, byHTTP)
				require.Greater(t, nowUDP, byUDP)
				require.Greater(t, c.Stats().DHT.Lookups, before)
				require.NotEmpty(t, s.seen("packet 85.0.0.254:5351"), "the router is asked")
				require.Len(t, d.Stats().Peers, 1)
				d.mu.Lock()
				defer d.mu.Unlock()
				require.Equal(t, tc.drops, d.swarm.peers[0].number != first, "the connection is a new one")
			})
		})
	}
}

// While addresses of the machine come and go all the time, such as those of containers, trackers are asked little more often than
// they allow, and hear of a change soon after it has ended.
func TestAddressesThatComeAndGo(t *testing.T) {
	skipUnderRace(t, true)
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		w := newWorld(t, n)
		s := newSpy(n.NewHost("85.0.0.1", 0, 0, 10*time.Millisecond))
		c := w.bound(t, s)
		_, stop := w.linger(t, c)
		defer stop()
		simnet.Sleep(time.Minute)
		byHTTP, byUDP := w.asked()
		for range 180 {
			s.setAddrs(s.host.IP(), netip.MustParseAddr("172.18.0.1"))
			simnet.Sleep(10 * time.Second)
			s.setAddrs(s.host.IP())
			simnet.Sleep(10 * time.Second)
		}
		nowHTTP, nowUDP := w.asked()
		require.Less(t, nowHTTP-byHTTP, 40, "in an hour")
		require.Less(t, nowUDP-byUDP, 40)
		s.setAddrs(netip.MustParseAddr("85.0.0.9"))
		byHTTP, byUDP = w.asked()
		simnet.Sleep(6 * time.Minute)
		nowHTTP, nowUDP = w.asked()
		require.Greater(t, nowHTTP, byHTTP)
		require.Greater(t, nowUDP, byUDP)
	})
}

// An address that Allow or Ban refuses is refused whatever its source, by TCP and uTP, in both directions.
func TestAllowAndBanOfEveryKind(t *testing.T) {
	sources := []peerlist.Source{peerlist.FromUser, peerlist.FromTracker, peerlist.FromDHT, peerlist.FromPEX, peerlist.FromLSD, peerlist.FromFinder}
	for _, ban := range []bool{false, true} {
		for _, utp := range []bool{false, true} {
			t.Run(fmt.Sprintf("ban %t, uTP %t", ban, utp), func(t *testing.T) {
				simnet.Run(t, func(t *testing.T, n *simnet.Network) {
					content := newSimContent(1, blockSize, 16*blockSize)
					us, them := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("81.0.0.1", 0, 0, 0)
					s := newSpy(us)
					c := utpClient(t, us, !utp)
					c.Dial, c.ListenPacket, c.hooks = nil, nil, s.hooks()
					c.NoUTP = !utp
					if !ban {
						c.Allow = func(a netip.Addr) bool { return a != them.IP() }
					}
					d := simLeech(t, c, content)
					if ban {
						d.Ban(them.IP())
					}
					theirs := utpClient(t, them, !utp)
					theirs.NoUTP = !utp
					seed := simSeed(t, theirs, content, us.Addr(6881)) // which dials us
					for _, from := range sources {
						d.discovery.found(from, "", them.Addr(6881))
					}
					simnet.Sleep(10 * time.Minute)
					require.Empty(t, s.seen("dial 81.", "SYN 81."))
					require.Empty(t, d.Stats().Peers)
					require.Empty(t, seed.Stats().Peers)
					require.Zero(t, d.Stats().Verified)
				})
			})
		}
	}
}
