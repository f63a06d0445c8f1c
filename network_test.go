package torrent

import (
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent/internal/portmap"
	"github.com/shoal-go/torrent/internal/simnet"
)

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

// What the machine goes through is made up for within a minute, without the program's doing.
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
