package portmap_test

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/portmap"
)

const (
	here   = "192.168.1.5"
	gate   = "192.168.1.1"
	public = "203.0.113.7"
	port   = 6881
)

// A rig is a Mapper on a lan, within a bubble.
type rig struct {
	*lan
	mapper *portmap.Mapper
	start  func()
	stop   func() // ends Run, and waits for it

	mu       sync.Mutex
	gateways []portmap.Gateway
	held     []portmap.Mapping
	err      error
	reports  int
}

func newRig(t *testing.T, local, router string) *rig {
	g := &rig{lan: newLAN(local)}
	g.route(local, router)
	g.mapper = portmap.New(portmap.Config{
		Port: port, TCP: true, UDP: true,
		ListenPacket: g.listenPacket, Dial: g.dial,
		Gateways: func() ([]portmap.Gateway, error) {
			g.mu.Lock()
			defer g.mu.Unlock()
			return slices.Clone(g.gateways), nil
		},
		Report: func(held []portmap.Mapping, err error) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.held, g.err = held, err
			g.reports++
		},
		Rand: rand.NewChaCha8([32]byte{1}),
	})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	g.start = func() { running.Go(func() { g.mapper.Run(ctx) }) }
	g.stop = func() { cancel(); running.Wait() }
	t.Cleanup(g.stop)
	return g
}

// route changes the default route; without a router there is none.
func (g *rig) route(local, router string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gateways = nil
	if router != "" {
		g.gateways = []portmap.Gateway{{Router: netip.MustParseAddr(router), Local: netip.MustParseAddr(local)}}
	}
}

// state is what was reported last.
func (g *rig) state() ([]portmap.Mapping, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.held, g.err
}

// requireHeld has one mapping be held, and nothing else.
func (g *rig) requireHeld(t *testing.T, by portmap.Protocol, external string, tcp, udp uint16) {
	t.Helper()
	held, err := g.state()
	require.NoError(t, err)
	require.Len(t, held, 1)
	addr, _ := netip.ParseAddr(external)
	require.Equal(t, portmap.Mapping{Gateway: held[0].Gateway, By: by, External: addr, TCP: tcp, UDP: udp}, held[0])
}

func (g *rig) requireNone(t *testing.T, because string) {
	t.Helper()
	held, err := g.state()
	require.Empty(t, held)
	require.ErrorContains(t, err, because)
}

// speaking are routers that speak one protocol or more.
var speaking = []struct {
	name   string
	speak  func(*router)
	by     portmap.Protocol
	within time.Duration // of the start it is mapped
	checks time.Duration // between looks at whether it is still
}{
	{"everything", func(r *router) { r.speak(true, true); r.speakUPnP(2) }, portmap.PCP, 50 * time.Millisecond, time.Minute},
	{"PCP", func(r *router) { r.speak(true, false) }, portmap.PCP, 50 * time.Millisecond, time.Minute},
	{"NAT-PMP and UPnP", func(r *router) { r.speak(false, true); r.speakUPnP(1) }, portmap.NATPMP, 50 * time.Millisecond, time.Minute},
	{"UPnP 1", func(r *router) { r.speakUPnP(1) }, portmap.UPnP, time.Second, 5 * time.Minute},
	{"UPnP 2", func(r *router) { r.speakUPnP(2) }, portmap.UPnP, time.Second, 5 * time.Minute},
}

// TestMap has a port mapped for a day, and no longer.
func TestMap(t *testing.T) {
	for _, tt := range speaking {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t, here, gate)
				r := newRouter(g.lan, gate, public)
				tt.speak(r)
				g.start()
				time.Sleep(tt.within)
				synctest.Wait()
				g.requireHeld(t, tt.by, public, port, port)
				require.Equal(t, here+":6881", r.leads(tcp, port))
				require.Equal(t, here+":6881", r.leads(udp, port))

				for range 24 * 60 {
					time.Sleep(time.Minute)
					require.Equal(t, 2, r.mappings())
				}
				require.Equal(t, 1, g.reports)
				if tt.by == portmap.PCP {
					require.Len(t, r.nonces, 2, "a nonce for each transport, and no other for a renewal")
					require.LessOrEqual(t, r.times("map"), 2*(24*2+1))
				}
				g.stop()
				require.Zero(t, r.mappings())
			})
		})
	}
}

// TestRestart has a router lose its mappings, and then its address.
func TestRestart(t *testing.T) {
	for _, tt := range speaking {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t, here, gate)
				r := newRouter(g.lan, gate, public)
				tt.speak(r)
				g.start()
				time.Sleep(100 * time.Minute)
				r.restart()
				time.Sleep(tt.checks + time.Second)
				require.Equal(t, 2, r.mappings())
				g.requireHeld(t, tt.by, public, port, port)

				r.change("203.0.113.8")
				if tt.by == portmap.PCP {
					r.restart() // as its epoch says (RFC 6887, 8.5)
				}
				time.Sleep(tt.checks + time.Second)
				g.requireHeld(t, tt.by, "203.0.113.8", port, port)
				require.Equal(t, 2, r.mappings())
				require.LessOrEqual(t, len(r.nonces), 2)

				r.restart()
				g.mapper.Refresh()
				time.Sleep(time.Second)
				require.Equal(t, 2, r.mappings(), "the machine woke")
			})
		})
	}
}

// TestGateways follows the machine to other networks.
func TestGateways(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, here, "")
		r := newRouter(g.lan, gate, public)
		r.speak(true, true)
		g.start()
		time.Sleep(time.Second)
		g.requireNone(t, "no router to ask for a port")

		g.route(here, gate)
		time.Sleep(time.Minute)
		g.requireHeld(t, portmap.PCP, public, port, port)

		other := newRouter(g.lan, "10.0.0.1", "203.0.113.9")
		other.speakUPnP(2)
		g.move(here, "10.0.0.5")
		g.route("10.0.0.5", "10.0.0.1")
		g.mapper.Refresh()
		time.Sleep(time.Second)
		g.requireHeld(t, portmap.UPnP, "203.0.113.9", port, port)
		require.Equal(t, 2, other.mappings())
		require.Zero(t, r.mappings(), "deleted while the address was there")

		g.move()
		g.route("", "")
		time.Sleep(time.Minute)
		g.requireNone(t, "no router to ask for a port")
		g.move("10.0.0.5")
		g.route("10.0.0.5", "10.0.0.1")
		time.Sleep(time.Minute + time.Second)
		g.requireHeld(t, portmap.UPnP, "203.0.113.9", port, port)
		g.route(here, gate) // gone and come back before it was seen
		g.mapper.Refresh()
		time.Sleep(time.Millisecond)
		g.route("10.0.0.5", "10.0.0.1")
		g.mapper.Refresh()
		time.Sleep(5 * time.Second)
		g.requireHeld(t, portmap.UPnP, "203.0.113.9", port, port)
		require.Equal(t, 2, other.mappings())
	})
}

// TestIPv6 opens a firewall for each of the machine's addresses, by PCP alone.
func TestIPv6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const router, one, two = "fe80::1%eth0", "2001:db8::5", "2001:db8::6"
		g := newRig(t, one, router)
		g.move(one, two)
		g.gateways = append(g.gateways, portmap.Gateway{Router: netip.MustParseAddr(router), Local: netip.MustParseAddr(two)})
		for _, local := range []string{one, two} { // the address outside is the one inside
			r := newRouter(g.lan, router, local)
			r.only = netip.MustParseAddr(local)
			r.speak(true, true)
		}
		g.start()
		time.Sleep(time.Second)
		held, err := g.state()
		require.NoError(t, err)
		require.Len(t, held, 2)
		for i, local := range []string{one, two} {
			require.Equal(t, portmap.Mapping{
				Gateway: portmap.Gateway{Router: netip.MustParseAddr(router), Local: netip.MustParseAddr(local)},
				By:      portmap.PCP, External: netip.MustParseAddr(local), TCP: port, UDP: port,
			}, held[i])
		}
	})
	synctest.Test(t, func(t *testing.T) { // nothing else is asked
		g := newRig(t, "2001:db8::5", "fe80::1%eth0")
		g.start()
		time.Sleep(time.Minute)
		g.requireNone(t, "map port 6881 at fe80::1%eth0: no answer")
		require.Equal(t, 6, g.count("[fe80::1%eth0]:5351"))
		require.Len(t, g.sent, 1)
	})
}

// TestSilence has nothing answer: at first, from some time on, and at the end.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, here, gate)
		g.start()
		time.Sleep(16 * time.Second)
		g.requireNone(t, "map port 6881 at 192.168.1.1: no answer")
		require.Equal(t, 12, g.count(gate+":5351"), "six tries of PCP and NAT-PMP")
		require.Equal(t, 6, g.count("239.255.255.250:1900"))
		time.Sleep(24 * time.Hour)
		require.Less(t, g.count(gate+":5351"), 12*60, "less and less often")

		r := newRouter(g.lan, gate, public)
		r.speak(true, true)
		g.mapper.Refresh()
		time.Sleep(time.Second)
		g.requireHeld(t, portmap.PCP, public, port, port)

		g.silence()
		time.Sleep(59 * time.Minute)
		held, err := g.state()
		require.Len(t, held, 1, "the router may hold it still")
		require.ErrorContains(t, err, "no answer")
		time.Sleep(2 * time.Minute)
		g.requireNone(t, "no answer")

		time.Sleep(5 * time.Hour)
		r.speakUPnP(1) // another in its place
		time.Sleep(80 * time.Second)
		g.requireHeld(t, portmap.UPnP, public, port, port)

		g.silence()
		began := time.Now()
		g.stop()
		require.LessOrEqual(t, time.Since(began), 2*time.Second)
	})
}
