//go:build linux

package interop

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/portmap"
)

// The network of these tests: this host and a neighbour behind a router that masquerades, and a peer in
// the Internet.
const (
	homeHost      = "192.168.77.2"
	homeHost6     = "2a0a:77::2"
	homeNeighbour = "192.168.77.66"
	homeRouter    = "192.168.77.1"
	homeOutside   = "11.22.33.1" // miniupnpd takes no address that is reserved for a public one
	homePeer      = "11.22.33.2"
	homePeer6     = "2a0a:88::2"
	homePort      = 6881
)

// A home is a network behind a router that runs miniupnpd.
type home struct {
	router, neighbour, peer *host
	daemon                  *process
	config                  string
}

// routerRules let in what the router's users asked for and answers to them, and nothing else.
const routerRules = `
table inet filter {
	chain forward {
		type filter hook forward priority 0
		policy accept
		ct state established,related accept
		iifname "lan" accept
		jump miniupnpd
		reject with icmpx admin-prohibited
	}
	chain miniupnpd { }
	chain prerouting {
		type nat hook prerouting priority -100
		jump prerouting_miniupnpd
	}
	chain postrouting {
		type nat hook postrouting priority 100
		jump postrouting_miniupnpd
		meta nfproto ipv4 oifname "wan" masquerade
	}
	chain prerouting_miniupnpd { }
	chain postrouting_miniupnpd { }
	chain input {
		type filter hook input priority 0
		%s
	}
}`

// newHome makes the network, with a rule for what comes to the router itself, and lines for miniupnpd.
func newHome(t *testing.T, input string, config ...string) *home {
	t.Helper()
	h := &home{router: newHost(t, "router"), neighbour: newHost(t, "neighbour"), peer: newHost(t, "peer")}
	here().ip(t, "link set lo up")
	here().link(t, "lan0", h.router, "port0")
	h.neighbour.link(t, "lan0", h.router, "port1")
	h.peer.link(t, "wan0", h.router, "wan")
	h.router.ip(t,
		"link add lan type bridge", "link set port0 master lan", "link set port1 master lan", "link set lan up",
		"addr add "+homeRouter+"/24 dev lan", "addr add fe80::1/64 dev lan nodad", "addr add 2a0a:77::1/64 dev lan nodad",
		"addr add "+homeOutside+"/24 dev wan", "addr add 2a0a:88::1/64 dev wan nodad")
	here().ip(t,
		"addr add "+homeHost+"/24 dev lan0", "addr add "+homeHost6+"/64 dev lan0 nodad",
		"route add default via "+homeRouter, "-6 route add default via fe80::1 dev lan0")
	h.neighbour.ip(t, "addr add "+homeNeighbour+"/24 dev lan0", "route add default via "+homeRouter)
	h.peer.ip(t, "addr add "+homePeer+"/24 dev wan0", "addr add "+homePeer6+"/64 dev wan0 nodad", "-6 route add default via 2a0a:88::1")
	h.router.write(t, "/proc/sys/net/ipv4/ip_forward", "1")
	h.router.write(t, "/proc/sys/net/ipv6/conf/all/forwarding", "1")
	h.router.nft(t, fmt.Sprintf(routerRules, input))
	h.config = scratch(t, "miniupnpd.conf", []byte(strings.Join(append([]string{
		"ext_ifname=wan", "listening_ip=lan", "secure_mode=yes", "system_uptime=no", "uuid=6ba7b810-9dad-11d1-80b4-00c04fd430c8",
	}, config...), "\n")+"\n"))
	h.start(t)
	return h
}

// uptime is how long a router must have run for its clock to show, within a minute, that it has restarted.
const uptime = 15 * time.Second

// start starts miniupnpd, which forgets what it mapped before.
func (h *home) start(t *testing.T) {
	t.Helper()
	if h.daemon != nil {
		h.daemon.stop()
		h.router.nft(t, "flush chain inet filter miniupnpd\nflush chain inet filter prerouting_miniupnpd\nflush chain inet filter postrouting_miniupnpd")
	}
	h.daemon = h.router.run(t, "miniupnpd", "-d", "-f", h.config, "-P", scratch(t, "pid", nil))
	h.daemon.awaitText(t, "HTTP listening on port")
}

// mapped is what a Mapper reports.
type mapped struct {
	mu      sync.Mutex
	held    []portmap.Mapping
	err     error
	changed chan struct{} // closed, and another made, with each report
}

// mapPort runs a Mapper on a host, with the routers that this host has or those given. stop ends it, and
// waits until it has deleted what it mapped.
func mapPort(t *testing.T, h *host, gateways func() ([]portmap.Gateway, error)) (m *portmap.Mapper, got *mapped, stop func()) {
	got = &mapped{changed: make(chan struct{})}
	m = portmap.New(portmap.Config{
		Port: homePort, TCP: true, UDP: true,
		ListenPacket: func(_ context.Context, network, addr string) (c net.PacketConn, err error) {
			err = h.do(func() error { c, err = net.ListenPacket(network, addr); return err })
			return c, err
		},
		Dial:     func(_ context.Context, network, addr string) (net.Conn, error) { return h.dial(network, addr) },
		Gateways: gateways,
		Farewell: patience,
		Report: func(held []portmap.Mapping, err error) {
			got.mu.Lock()
			defer got.mu.Unlock()
			got.held, got.err = held, err
			close(got.changed)
			got.changed = make(chan struct{})
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { m.Run(ctx) })
	stop = func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	return m, got, stop
}

// await waits for a report that is as wanted.
func (m *mapped) await(t *testing.T, wanted func(held []portmap.Mapping, err error) bool) ([]portmap.Mapping, error) {
	t.Helper()
	deadline := time.After(patience)
	for {
		m.mu.Lock()
		held, err, changed := m.held, m.err, m.changed
		m.mu.Unlock()
		if wanted(held, err) {
			return held, err
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("held: %v, %v", held, err)
		}
	}
}

// awaitMapping waits for the mapping of IPv4.
func (m *mapped) awaitMapping(t *testing.T, by portmap.Protocol) {
	t.Helper()
	m.await(t, func(held []portmap.Mapping, _ error) bool {
		return len(held) > 0 && held[0] == portmap.Mapping{
			Gateway: portmap.Gateway{Router: netip.MustParseAddr(homeRouter), Local: netip.MustParseAddr(homeHost)},
			By:      by, External: netip.MustParseAddr(homeOutside), TCP: homePort, UDP: homePort,
		}
	})
}

// echo serves TCP and UDP on the port, and returns the addresses that spoke to it.
func echo(t *testing.T) (from chan netip.Addr) {
	from = make(chan netip.Addr, 16)
	l := here().listen(t, fmt.Sprintf(":%d", homePort))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			from <- c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	p := here().listenPacket(t, fmt.Sprintf(":%d", homePort))
	go func() {
		b := make([]byte, 1500)
		for {
			n, addr, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			from <- addr.(*net.UDPAddr).AddrPort().Addr().Unmap()
			p.WriteTo(b[:n], addr)
		}
	}()
	return from
}

// requireReached has the peer in the Internet speak to this host, by TCP and UDP.
func (h *home) requireReached(t *testing.T, addr, peer string, from chan netip.Addr) {
	t.Helper()
	for _, network := range []string{"tcp", "udp"} {
		c, err := h.peer.dial(network, netip.AddrPortFrom(netip.MustParseAddr(addr), homePort).String())
		require.NoError(t, err)
		c.SetDeadline(time.Now().Add(patience))
		_, err = io.WriteString(c, "hello")
		require.NoError(t, err)
		b := make([]byte, 5)
		_, err = io.ReadFull(c, b)
		require.NoError(t, err)
		require.Equal(t, "hello", string(b))
		require.Equal(t, peer, (<-from).String(), "nothing stands between")
		c.Close()
	}
}

// requireShut has nothing of this host reached from outside.
func (h *home) requireShut(t *testing.T) {
	t.Helper()
	for _, addr := range []string{homeOutside, homeHost6} {
		_, err := h.peer.dial("tcp", netip.AddrPortFrom(netip.MustParseAddr(addr), homePort).String())
		require.True(t, isRefused(err), "%s: %v", addr, err)
	}
	require.NotContains(t, h.router.output(t, "nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd"), "dnat")
	require.NotContains(t, h.router.output(t, "nft", "list", "chain", "inet", "filter", "miniupnpd"), "accept")
}

// TestPortMap has miniupnpd map a port by each protocol, which a peer outside then uses.
func TestPortMap(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		by     portmap.Protocol
		input  string   // what the router drops, so that nothing but this is left
		config []string // of miniupnpd
		checks bool     // a restart is seen within a minute, unasked
		v6     bool
	}{
		{portmap.PCP, "", []string{"enable_natpmp=yes"}, true, true},
		{portmap.NATPMP, "udp dport 5351 @th,64,8 2 drop", []string{"enable_natpmp=yes"}, true, false}, // version 2 is PCP
		{portmap.UPnP, "", []string{"enable_natpmp=no"}, false, false},
	} {
		t.Run(tt.by.String(), func(t *testing.T) {
			need(t, "miniupnpd", "nft", "ip", "nsenter")
			t.Parallel()
			if !ownNetwork(t) {
				return
			}
			h := newHome(t, tt.input, tt.config...)
			from := echo(t)
			h.requireShut(t)

			began := time.Now()
			m, got, stop := mapPort(t, here(), nil)
			got.awaitMapping(t, tt.by)
			t.Logf("%s: mapped after %v", tt.by, time.Since(began).Round(time.Millisecond))
			h.requireReached(t, homeOutside, homePeer, from)
			if tt.v6 {
				got.await(t, func(held []portmap.Mapping, _ error) bool { return len(held) == 2 })
				h.requireReached(t, homeHost6, homePeer6, from)
			}

			if tt.checks {
				time.Sleep(uptime)
			}
			h.start(t)
			began = time.Now()
			if !tt.checks {
				m.Refresh()
			}
			require.Eventually(t, func() bool {
				c, err := h.peer.dial("tcp", fmt.Sprintf("%s:%d", homeOutside, homePort))
				if err == nil {
					c.Close()
					<-from
				}
				return err == nil
			}, 70*time.Second, 100*time.Millisecond)
			t.Logf("%s: mapped again %v after the router restarted", tt.by, time.Since(began).Round(time.Second))
			got.awaitMapping(t, tt.by)
			require.Eventually(t, func() bool {
				return strings.Count(h.router.output(t, "nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd"), "dnat") == 2
			}, patience, 100*time.Millisecond, "UDP, too")
			h.requireReached(t, homeOutside, homePeer, from)

			began = time.Now()
			stop()
			t.Logf("%s: deleted within %v", tt.by, time.Since(began).Round(time.Millisecond))
			h.requireShut(t)
		})
	}

	t.Run("taken", func(t *testing.T) { // by the neighbour
		need(t, "miniupnpd", "nft", "ip", "nsenter")
		t.Parallel()
		if !ownNetwork(t) {
			return
		}
		h := newHome(t, "", "enable_natpmp=no")
		_, got, stop := mapPort(t, h.neighbour, func() ([]portmap.Gateway, error) {
			return []portmap.Gateway{{Router: netip.MustParseAddr(homeRouter), Local: netip.MustParseAddr(homeNeighbour)}}, nil
		})
		got.await(t, func(held []portmap.Mapping, _ error) bool { return len(held) == 1 && held[0].TCP == homePort })
		from := echo(t)
		_, ours, stopOurs := mapPort(t, here(), nil)
		held, _ := ours.await(t, func(held []portmap.Mapping, _ error) bool { return len(held) > 0 && held[0].By == portmap.UPnP })
		require.Equal(t, held[0].TCP, held[0].UDP)
		require.NotEqual(t, uint16(homePort), held[0].TCP)
		c, err := h.peer.dial("tcp", fmt.Sprintf("%s:%d", homeOutside, held[0].TCP))
		require.NoError(t, err)
		c.Close()
		require.Equal(t, homePeer, (<-from).String())
		t.Logf("UPnP: port %d where the neighbour has %d", held[0].TCP, homePort)
		stopOurs()
		require.Equal(t, 2, strings.Count(h.router.output(t, "nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd"), "dnat"), "the neighbour's are left")
		stop()
	})

	t.Run("refused", func(t *testing.T) { // by a router behind another
		need(t, "miniupnpd", "nft", "ip", "nsenter")
		t.Parallel()
		if !ownNetwork(t) {
			return
		}
		h := newHome(t, "", "enable_natpmp=yes")
		h.router.ip(t, "addr del "+homeOutside+"/24 dev wan", "addr add 10.9.8.1/24 dev wan")
		h.start(t)
		_, got, _ := mapPort(t, here(), nil)
		_, err := got.await(t, func(_ []portmap.Mapping, err error) bool {
			return err != nil && strings.Contains(err.Error(), homeRouter)
		})
		t.Logf("%v", err)
		for _, by := range []string{"PCP refused: ", "NAT-PMP refused: ", "AddPortMapping at http://" + homeRouter + ":"} {
			require.ErrorContains(t, err, by)
		}
	})

	t.Run("wrong answers", func(t *testing.T) { // are not believed
		need(t, "miniupnpd", "nft", "ip", "nsenter")
		t.Parallel()
		if !ownNetwork(t) {
			return
		}
		h := newHome(t, "", "enable_natpmp=no")
		lies := h.lie(t)
		_, got, _ := mapPort(t, here(), nil)
		got.awaitMapping(t, portmap.UPnP)
		require.Positive(t, lies.told.Load())
		require.Zero(t, lies.believed.Load())
		t.Logf("%d wrong answers, %d connections to where they led", lies.told.Load(), lies.believed.Load())
	})
}

// lies count wrong answers, and what came of them.
type lies struct{ told, believed atomic.Int64 }

// lie has the neighbour answer searches for routers with devices elsewhere, and the router's port for PCP and
// NAT-PMP say what is no answer, while what would be one comes from another port.
func (h *home) lie(t *testing.T) *lies {
	t.Helper()
	var told lies
	elsewhere := httptest.NewUnstartedServer(http.NotFoundHandler())
	elsewhere.Listener.Close()
	elsewhere.Listener = h.peer.listen(t, homePeer+":8080")
	elsewhere.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			told.believed.Add(1)
		}
	}
	elsewhere.Start()
	t.Cleanup(elsewhere.Close)

	var searches *net.UDPConn
	require.NoError(t, h.neighbour.do(func() error {
		lan, err := net.InterfaceByName("lan0")
		if err == nil {
			searches, err = net.ListenMulticastUDP("udp4", lan, &net.UDPAddr{IP: net.IPv4(239, 255, 255, 250), Port: 1900})
		}
		return err
	}))
	t.Cleanup(func() { searches.Close() })
	answer := func(c net.PacketConn, say func(b []byte, from net.Addr)) {
		go func() {
			b := make([]byte, 2000)
			for {
				n, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				told.told.Add(1)
				say(b[:n], from)
			}
		}()
	}
	ownAddress := h.neighbour.listenPacket(t, homeNeighbour+":0")
	answer(searches, func(_ []byte, from net.Addr) {
		for _, location := range []string{"http://" + homePeer + ":8080/", "http://localhost:8080/", "http://" + homeRouter + ":1/"} {
			fmt.Fprintf(writerTo{ownAddress, from}, "HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:2\r\nLocation: %s\r\n\r\n", location)
		}
	})
	// Everything is right but the nonce, the port inside, or the port that it comes from.
	right, wrong := h.router.listenPacket(t, homeRouter+":5351"), h.router.listenPacket(t, homeRouter+":5350")
	answer(right, func(b []byte, from net.Addr) {
		switch {
		case b[0] == 0:
			wrong.WriteTo([]byte{0, b[1] | 0x80, 0, 0, 0, 0, 0, 1, 6, 6, 6, 6}, from)
		case b[1] == 0:
			right.WriteTo(append([]byte{2, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, make([]byte, 12)...), from)
		default:
			granted := append(append([]byte{2, 0x81, 0, 0, 0, 0, 14, 16, 0, 0, 0, 1}, make([]byte, 12)...), b[24:]...)
			wrong.WriteTo(granted, from)
			for _, at := range []int{24, 41} {
				changed := bytes.Clone(granted)
				changed[at] ^= 1
				right.WriteTo(changed, from)
			}
		}
	})
	return &told
}

// writerTo writes packets to one address.
type writerTo struct {
	net.PacketConn
	to net.Addr
}

func (w writerTo) Write(b []byte) (int, error) { return w.WriteTo(b, w.to) }
