package torrent

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

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
