package torrent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/portmap"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simproxy"
)

// A spy stands for the system of a client on a simulated host, and counts what leaves it and by which way.
type spy struct {
	host *simnet.Host

	mu     sync.Mutex
	counts map[string]int // by "dial ADDR", "packet ADDR", "listen", "listen packet", "multicast", "look up HOST", "gateways"
	addrs  []netip.Addr   // of the machine
}

func newSpy(h *simnet.Host) *spy {
	return &spy{host: h, counts: map[string]int{}, addrs: []netip.Addr{h.IP()}}
}

func (s *spy) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[fmt.Sprintf(format, args...)]++
}

// seen is what was counted that begins with one of the prefixes, or all.
func (s *spy) seen(prefixes ...string) (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for what := range s.counts {
		for _, p := range prefixes {
			if strings.HasPrefix(what, p) {
				all = append(all, what)
			}
		}
	}
	return all
}

func (s *spy) dial(ctx context.Context, from netip.Addr, network, addr string) (net.Conn, error) {
	s.note("dial %s", addr)
	if from.IsValid() {
		s.note("bound %s", from)
	}
	return s.host.Dial(ctx, network, addr)
}

func (s *spy) listenPacket(_ context.Context, network, addr string) (net.PacketConn, error) {
	s.note("listen packet %s %s", network, addr)
	c, err := s.host.ListenPacket(network, addr)
	if err != nil {
		return nil, err
	}
	return spiedPackets{c, s}, nil
}

type spiedPackets struct {
	net.PacketConn
	s *spy
}

func (c spiedPackets) WriteTo(b []byte, to net.Addr) (int, error) {
	c.s.note("packet %s", to)
	switch {
	case len(b) > 0 && b[0] == 'd':
		c.s.note("DHT packet %s", to)
	case len(b) > 0 && b[0]&0x0f == 1 && b[0]>>4 <= 4:
		c.s.note("uTP packet %s", to)
		if b[0]>>4 == 4 {
			c.s.note("SYN %s", to)
		}
	}
	return c.PacketConn.WriteTo(b, to)
}

// hooks are a client's, but for a seed.
func (s *spy) hooks() hooks {
	return hooks{
		dial: s.dial, listenPacket: s.listenPacket,
		listen: func(network, addr string) (net.Listener, error) {
			s.note("listen %s", addr)
			return s.host.Listen(network, addr)
		},
		listenMulticast: func(network string, _ netip.AddrPort) (net.PacketConn, error) {
			s.note("multicast %s", network)
			return nil, errors.New("no multicast here")
		},
		lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
			s.note("look up %s", host)
			return nil, errors.New("no such host")
		},
		gateways: func() ([]portmap.Gateway, error) {
			s.note("gateways")
			return nil, nil
		},
		addrs: func() ([]netip.Addr, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return append([]netip.Addr(nil), s.addrs...), nil
		},
		seed: 1,
	}
}

// A world is what a client may meet: a seed, trackers that name it, and a DHT, all of them known to a proxy by name.
type world struct {
	content *simContent
	seed    netip.AddrPort
	proxy   *simproxy.Proxy
	names   map[string]netip.Addr

	mu                  sync.Mutex
	httpAsked, udpAsked int
	agents              []string
}

const (
	httpTrackerURL = "http://http.sim/announce"
	udpTrackerURL  = "udp://udp.sim:6969/announce"
	dhtRouter      = "router.sim:6881"
)

func newWorld(t *testing.T, n *simnet.Network) *world {
	w := &world{names: map[string]netip.Addr{}}
	router := netip.MustParseAddrPort(dhtNetwork(t, n, 5))
	w.names["router.sim"] = router.Addr()
	w.content = newSimResolvable(t, 8, false)

	seed := n.NewHost("80.0.0.1", 0, 0, 10*time.Millisecond)
	c := dhtClient(t, seed, router.String())
	c.NoUTP = false
	simSeed(t, c, w.content)
	w.seed = seed.Addr(6881)

	trackers := n.NewHost("83.0.0.1", 0, 0, 10*time.Millisecond)
	w.names["http.sim"], w.names["udp.sim"] = trackers.IP(), trackers.IP()
	w.serveHTTP(t, trackers)
	w.serveUDP(t, trackers)

	web := n.NewHost("83.0.0.9", 0, 0, 10*time.Millisecond)
	w.names["web.sim"] = web.IP()
	l, err := web.Listen("tcp", ":80")
	require.NoError(t, err)
	server := &http.Server{Handler: http.NotFoundHandler()}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })

	via := n.NewHost("84.0.0.1", 0, 0, 10*time.Millisecond)
	w.proxy = simproxy.New(via)
	w.proxy.Names = w.names
	require.NoError(t, w.proxy.Start())
	t.Cleanup(w.proxy.Stop)
	return w
}

func (w *world) compact() []byte {
	return binary.BigEndian.AppendUint16(w.seed.Addr().AsSlice(), w.seed.Port())
}

func (w *world) serveHTTP(t *testing.T, h *simnet.Host) {
	l, err := h.Listen("tcp", ":80")
	require.NoError(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.httpAsked++
		w.agents = append(w.agents, r.Header.Get("User-Agent"))
		w.mu.Unlock()
		fmt.Fprintf(rw, "d8:intervali1800e5:peers6:%se", w.compact())
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
}

func (w *world) serveUDP(t *testing.T, h *simnet.Host) {
	c, err := h.ListenPacket("udp4", ":6969")
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 2000)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			be := binary.BigEndian
			if n < 16 {
				continue
			}
			if action := be.Uint32(b[8:]); action == 0 {
				c.WriteTo(be.AppendUint64(be.AppendUint32([]byte{0, 0, 0, 0}, be.Uint32(b[12:])), 7), from)
			} else {
				w.mu.Lock()
				w.udpAsked++
				w.mu.Unlock()
				answer := be.AppendUint32([]byte{0, 0, 0, 1}, be.Uint32(b[12:]))
				answer = append(be.AppendUint32(answer, 1800), make([]byte, 8)...)
				c.WriteTo(append(answer, w.compact()...), from)
			}
		}
	}()
}

func (w *world) asked() (byHTTP, byUDP int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.httpAsked, w.udpAsked
}

// client is one that uses all that there is.
func (w *world) client(t *testing.T, s *spy) *Client {
	c := &Client{
		DHTNodes: []string{dhtRouter}, MapPorts: true, LocalDiscovery: true, Listen: ":6881",
		Encryption: DisableEncryption, hooks: s.hooks(),
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (w *world) magnet() *Magnet {
	return &Magnet{InfoHash: w.content.infoHash, Trackers: []string{httpTrackerURL, udpTrackerURL}, Peers: []string{"peer.sim:6881"}}
}

// download resolves a link and downloads what it is of.
func (w *world) download(t *testing.T, c *Client, within time.Duration) *Download {
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	tor, err := w.magnet().Resolve(ctx, &Options{Client: c})
	require.NoError(t, err)
	d, err := tor.Start(t.Context(), &Options{Client: c, Seed: true, Storage: newSimStorage(w.content).open, Trackers: [][]string{{httpTrackerURL}, {udpTrackerURL}}})
	require.NoError(t, err)
	select {
	case <-d.Done():
	case <-ctx.Done():
		require.Fail(t, "it takes too long")
	}
	return d
}

func proxyURL(t *testing.T, s string) *url.URL {
	u, err := url.Parse(s)
	require.NoError(t, err)
	return u
}

// requireOnly fails the test if anything was counted that the prefixes do not cover.
func (s *spy) requireOnly(t *testing.T, prefixes ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for what := range s.counts {
		fine := false
		for _, p := range prefixes {
			fine = fine || strings.HasPrefix(what, p)
		}
		require.True(t, fine, "beside the proxy: %s", what)
	}
}

// Everything goes through the proxy, names included, and nothing beside it.
func TestProxyCarriesEverything(t *testing.T) {
	for _, scheme := range []string{"socks5", "socks5h"} {
		for _, udp := range []bool{true, false} {
			t.Run(fmt.Sprint(scheme, " ", udp), func(t *testing.T) {
				simnet.Run(t, func(t *testing.T, n *simnet.Network) {
					w := newWorld(t, n)
					w.proxy.NoUDP = !udp
					s := newSpy(n.NewHost("85.0.0.1", 0, 0, 10*time.Millisecond))
					c := w.client(t, s)
					c.Proxy = proxyURL(t, scheme+"://84.0.0.1")
					w.download(t, c, time.Minute)
					simnet.Sleep(time.Minute)
					s.requireOnly(t, "dial 84.0.0.1:1080", "packet 84.0.0.1:", "uTP packet 84.0.0.1:", "SYN 84.0.0.1:", "listen packet")
					st := c.Stats()
					require.NoError(t, st.ProxyErr)
					require.Nil(t, c.Addr())
					require.ErrorIs(t, st.PortMapErr, ErrUnsupported)
					byHTTP, byUDP := w.asked()
					require.NotZero(t, byHTTP)
					if !udp {
						require.ErrorIs(t, st.UDPErr, ErrUnsupported)
						require.Zero(t, byUDP)
						require.Zero(t, st.DHT.NodesIPv4)
						return
					}
					require.NoError(t, st.UDPErr)
					require.NotZero(t, byUDP)
					require.NotZero(t, st.DHT.NodesIPv4)
				})
			})
		}
	}
}

// uTP goes through the proxy as well.
func TestProxyUTP(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		w := newWorld(t, n)
		s := newSpy(n.NewHost("85.0.0.1", 0, 0, 10*time.Millisecond))
		c := w.client(t, s)
		c.Proxy, c.NoTCP = proxyURL(t, "socks5h://84.0.0.1"), true
		w.download(t, c, time.Minute)
		s.requireOnly(t, "dial 84.0.0.1:1080", "packet 84.0.0.1:", "uTP packet 84.0.0.1:", "SYN 84.0.0.1:", "listen packet")
		require.NotContains(t, w.proxy.Asked(), "tcp "+w.seed.String())
		require.Contains(t, w.proxy.Asked(), "udp "+w.seed.String())
	})
}

// A proxy that goes away leaves nothing to fall back on: all waits for it, and goes on when it is back.
func TestProxyGone(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		w := newWorld(t, n)
		w.proxy.Stop()
		s := newSpy(n.NewHost("85.0.0.1", 0, 0, 10*time.Millisecond))
		c := w.client(t, s)
		c.Proxy = proxyURL(t, "socks5h://84.0.0.1")
		d, err := w.content.Start(t.Context(), &Options{Client: c, Storage: newSimStorage(w.content).open, Trackers: [][]string{{httpTrackerURL}, {udpTrackerURL}}})
		require.NoError(t, err)
		simnet.Sleep(time.Hour)
		s.requireOnly(t, "dial 84.0.0.1:1080", "listen packet")
		require.Error(t, c.Stats().ProxyErr)
		require.Error(t, c.Stats().UDPErr)
		require.Zero(t, d.Stats().Verified)

		require.NoError(t, w.proxy.Start())
		simnet.Sleep(2 * time.Minute)
		require.True(t, d.Stats().Complete)
		require.NoError(t, c.Stats().ProxyErr)

		// The association is made again when its connection ends.
		require.NoError(t, c.Stats().UDPErr)
		w.proxy.Stop()
		simnet.Sleep(time.Second)
		require.Error(t, c.Stats().UDPErr)
		require.NoError(t, w.proxy.Start())
		simnet.Sleep(time.Minute)
		require.NoError(t, c.Stats().UDPErr)
	})
}

func TestProxyOptions(t *testing.T) {
	for u, want := range map[string]string{
		"https://p":           `scheme "https" is not socks5, socks5h or http`,
		"ftp://user:secret@p": `scheme "ftp"`,
		"socks5://":           "invalid host name",
	} {
		c := &Client{Proxy: proxyURL(t, u)}
		err := c.Open()
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "secret")
		c.Proxy, c.NoDHT, c.NoUTP, c.Listen = nil, true, true, "127.0.0.1:0"
		require.NoError(t, c.Open(), "it is as it was")
		require.NoError(t, c.Close())
	}
	tor, _ := testContent(16<<10, 100)
	_, err := tor.Start(t.Context(), &Options{Client: &Client{Proxy: proxyURL(t, "gopher://p")}})
	require.ErrorContains(t, err, `scheme "gopher"`)

	c := &Client{Proxy: proxyURL(t, "http://127.0.0.1:9")}
	require.NoError(t, c.Open())
	defer c.Close()
	require.ErrorIs(t, c.Stats().UDPErr, ErrUnsupported)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.ErrorIs(t, c.Serve(l), ErrUnsupported)
	_, err = l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	require.ErrorIs(t, c.DHT().Stats().Err, ErrUnsupported)
}

// lookup is how a client without a proxy finds hosts.
func (w *world) lookup(_ context.Context, host string) ([]netip.Addr, error) {
	if a, ok := w.names[host]; ok {
		return []netip.Addr{a}, nil
	}
	return nil, errors.New("no such host")
}

// dialNames has a system dial names.
func (w *world) dialNames(dial func(context.Context, netip.Addr, string, string) (net.Conn, error)) func(context.Context, netip.Addr, string, string) (net.Conn, error) {
	return func(ctx context.Context, from netip.Addr, network, addr string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(addr)
		if a, ok := w.names[host]; err == nil && ok {
			if network == "tcp6" {
				return nil, &net.AddrError{Err: "no suitable address", Addr: host}
			}
			addr = net.JoinHostPort(a.String(), port)
		}
		return dial(ctx, from, network, addr)
	}
}
