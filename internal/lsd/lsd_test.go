package lsd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
)

// rig is a host in a local network whose client looks for peers there.
type rig struct {
	*Discovery
	mu    sync.Mutex
	found map[netip.AddrPort]bool
}

const cookie = 0xc00c1e // of the first host; each has its own

// run has a host look for peers at a port, which is 0 if it accepts none, until the test ends.
func run(t *testing.T, lan *simnet.LAN, h *simnet.Host, port uint16) *rig {
	c := Config{Listen: lan.Listener(h), Port: func() uint16 { return port }, Cookie: cookie - 1 + uint64(h.IP().As4()[3])}
	return &rig{Discovery: start(t, c), found: map[netip.AddrPort]bool{}}
}

// listens has a host look for peers by sockets of its own, until the test ends.
func listens(t *testing.T, listen func(network string, group netip.AddrPort) (net.PacketConn, error)) *Discovery {
	return start(t, Config{Listen: listen, Port: func() uint16 { return 6881 }, Cookie: 1})
}

// start runs a Discovery, which writes to no log, until the test ends.
func start(t *testing.T, c Config) *Discovery {
	c.Log = slog.New(slog.DiscardHandler)
	l := New(c)
	require.NotNil(t, l)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { l.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return l
}

// take is what Join is given: it reports whether an address is new.
func (r *rig) take(a netip.AddrPort) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.found[a] {
		return false
	}
	r.found[a] = true
	return true
}

func (r *rig) known() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.found)
}

func TestAnnounces(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		lan := new(simnet.LAN)
		us := run(t, lan, n.NewHost("192.168.0.1", 0, 0, 0), 6881)
		first := [20]byte{7: 1, 19: 1}
		leave := us.Join(first, us.take)
		simnet.Sleep(time.Second)
		want := "BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 6881\r\n" +
			"Infohash: 0000000000000001000000000000000000000001\r\ncookie: " + strconv.FormatUint(cookie, 16) + "\r\n\r\n\r\n"
		require.Equal(t, []string{want}, lan.Take())
		require.Zero(t, us.known(), "we hear ourselves")
		simnet.Sleep(4*time.Minute + 58*time.Second)
		require.Empty(t, lan.Take())
		simnet.Sleep(2 * time.Second)
		require.Len(t, lan.Take(), 1, "every five minutes")

		group := groups()[0].addr
		s, err := lan.Listener(n.NewHost("192.168.0.2", 0, 0, 0))("udp4", group)
		require.NoError(t, err)
		defer s.Close()
		say := func(port uint16, cookie string, of ...[20]byte) {
			_, err := s.WriteTo(appendPacket(nil, group, port, of, cookie), net.UDPAddrFromAddrPort(group))
			require.NoError(t, err)
			lan.Take()
			simnet.Sleep(time.Second)
		}
		say(1, "x", [20]byte{1}, [20]byte{2})
		require.Empty(t, lan.Take(), "others speak of torrents that are not ours")
		require.Zero(t, us.known())
		say(1, "", first)
		require.Equal(t, 1, us.known())
		require.Empty(t, lan.Take(), "not within a minute")
		simnet.Sleep(time.Minute)
		require.Len(t, lan.Take(), 1, "a new peer is answered")
		say(1, "", first)
		simnet.Sleep(2 * time.Minute)
		require.Empty(t, lan.Take(), "but once")

		for k := range 1000 {
			s.WriteTo(appendPacket(nil, group, uint16(k+1), [][20]byte{first}, ""), net.UDPAddrFromAddrPort(group))
		}
		lan.Take()
		simnet.Sleep(time.Second)
		require.Less(t, us.known(), 2*maxHeard+10, "a flood is cut")
		simnet.Sleep(time.Minute)
		lan.Take()

		leave()
		simnet.Sleep(10 * time.Minute)
		require.Empty(t, lan.Take())
	})
}

// Hosts that announce two hundred times a second keep no other from being heard.
func TestFloodOfOneHost(t *testing.T) {
	for _, flooding := range []int{1, 3, 10} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			lan := new(simnet.LAN)
			us := run(t, lan, n.NewHost("192.168.0.1", 0, 0, 0), 6881)
			defer us.Join([20]byte{1}, us.take)()
			group := groups()[0].addr
			hosts := 0
			host := func() (say func(hash byte)) {
				hosts++
				s, err := lan.Listener(n.NewHost(fmt.Sprintf("192.168.1.%d", hosts), 0, 0, 0))("udp4", group)
				require.NoError(t, err)
				t.Cleanup(func() { s.Close() })
				return func(hash byte) {
					s.WriteTo(appendPacket(nil, group, 6881, [][20]byte{{hash}}, ""), net.UDPAddrFromAddrPort(group))
				}
			}
			var flood []func(hash byte)
			for range flooding {
				flood = append(flood, host())
			}
			honest := 0
			for k := range 602 {
				for _, say := range flood {
					say(2)
				}
				if k > 400 && k%20 == 9 {
					honest++
					host()(1)
				}
				simnet.Sleep(5 * time.Millisecond)
			}
			require.Equal(t, honest, us.known(), "beside %d", flooding)
		})
	}
}

// A torrent that leaves and joins again is not announced more often than one that stays.
func TestJoinAgain(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		lan := new(simnet.LAN)
		us := run(t, lan, n.NewHost("192.168.0.1", 0, 0, 0), 6881)
		for range 10 {
			leave := us.Join([20]byte{1}, us.take)
			simnet.Sleep(time.Second)
			leave()
		}
		defer us.Join([20]byte{1}, us.take)()
		require.Len(t, lan.Take(), 1)
		simnet.Sleep(time.Minute)
		require.Len(t, lan.Take(), 1)
	})
}

func TestAnnounceGathersTorrents(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		lan := new(simnet.LAN)
		us := run(t, lan, n.NewHost("192.168.0.1", 0, 0, 0), 6881)
		for k := range 45 {
			us.Join([20]byte{byte(k + 1)}, us.take)
		}
		simnet.Sleep(30 * time.Minute)
		said := map[[20]byte]int{}
		packets := lan.Take()
		for _, p := range packets {
			require.LessOrEqual(t, len(p), maxPacket)
			_, hashes, _, ok := parsePacket([]byte(p))
			require.True(t, ok)
			for _, h := range hashes {
				said[h]++
			}
		}
		require.Len(t, said, 45)
		require.LessOrEqual(t, len(packets), 30+announceBurst, "one a minute in the long run")
		for h, times := range said {
			require.InDelta(t, 6, times, 1, h)
		}
	})
}

func TestWithoutPort(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		lan := new(simnet.LAN)
		deaf := run(t, lan, n.NewHost("192.168.0.1", 0, 0, 0), 0)
		deaf.Join([20]byte{1}, deaf.take)
		simnet.Sleep(time.Minute)
		require.Empty(t, lan.Take(), "no peer could connect")
		other := run(t, lan, n.NewHost("192.168.0.2", 0, 0, 0), 6881)
		other.Join([20]byte{1}, other.take)
		simnet.Sleep(10 * time.Second)
		require.Equal(t, 1, deaf.known())
		require.True(t, deaf.found[netip.MustParseAddrPort("192.168.0.2:6881")])
	})
}

// brokenConn fails to read a few times, as a socket does when the network changes.
type brokenConn struct {
	net.PacketConn
	failures int
}

func (c *brokenConn) ReadFrom(b []byte) (int, net.Addr, error) {
	if c.failures--; c.failures >= 0 {
		return 0, nil, errors.New("network is down")
	}
	return c.PacketConn.ReadFrom(b)
}

func TestSocketThatFails(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		lan := new(simnet.LAN)
		us := run(t, lan, n.NewHost("192.168.0.1", 0, 0, 0), 6881)
		l := listens(t, func(network string, group netip.AddrPort) (net.PacketConn, error) {
			c, err := lan.Listener(n.NewHost("192.168.0.2", 0, 0, 0))(network, group)
			return &brokenConn{c, 3}, err
		})
		heard := 0
		l.Join([20]byte{1}, func(netip.AddrPort) bool { heard++; return true })
		simnet.Sleep(4 * time.Second)
		us.Join([20]byte{1}, us.take)
		simnet.Sleep(time.Second)
		require.Equal(t, 1, heard)
	})
}

func TestWithoutGroup(t *testing.T) {
	var tried []string
	l := New(Config{
		Listen: func(network string, group netip.AddrPort) (net.PacketConn, error) {
			tried = append(tried, fmt.Sprint(network, " ", group))
			return nil, errors.New("no multicast here")
		},
		Log: slog.New(slog.DiscardHandler),
	})
	require.Empty(t, l.sockets)
	slices.Sort(tried)
	require.Equal(t, []string{"udp4 239.192.152.143:6771", "udp6 [ff15::efc0:988f]:6771"}, tried)
}

// A machine that has moved joins the groups again, and is heard there.
func TestRejoin(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		lan, other := new(simnet.LAN), new(simnet.LAN)
		at, us := lan, n.NewHost("192.168.0.1", 0, 0, 0)
		opened := 0
		l := listens(t, func(network string, group netip.AddrPort) (net.PacketConn, error) {
			opened++
			return at.Listener(us)(network, group)
		})
		l.Join([20]byte{1}, func(netip.AddrPort) bool { return true })
		simnet.Sleep(2 * time.Minute)
		require.NotEmpty(t, lan.Take())
		before := opened
		at = other
		l.Rejoin()
		simnet.Sleep(time.Second)
		require.Equal(t, 2*before, opened)
		require.Empty(t, lan.Take())
		require.NotEmpty(t, other.Take())
	})
}

// Groups of which none can be joined, at first or after a change of networks, are joined later.
func TestGroupsAreJoinedLater(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		lan, us := new(simnet.LAN), n.NewHost("192.168.0.1", 0, 0, 0)
		var tried atomic.Int32
		began := time.Now()
		l := listens(t, func(network string, group netip.AddrPort) (net.PacketConn, error) {
			tried.Add(1)
			if at := time.Since(began); at < time.Hour || at > 124*time.Minute && at < 127*time.Minute {
				return nil, errors.New("no multicast yet")
			}
			return lan.Listener(us)(network, group)
		})
		l.Join([20]byte{1}, func(netip.AddrPort) bool { return true })
		simnet.Sleep(time.Hour)
		require.Empty(t, lan.Take())
		require.Less(t, tried.Load(), int32(15))
		simnet.Sleep(65 * time.Minute)
		require.NotEmpty(t, lan.Take())

		tried.Store(0)
		l.Rejoin()
		simnet.Sleep(2*time.Minute - time.Second)
		require.Empty(t, lan.Take())
		simnet.Sleep(10 * time.Minute)
		require.NotEmpty(t, lan.Take())
		require.Less(t, tried.Load(), int32(10))
	})
}

// A look at the schedule sorts nothing while nothing can be announced. With 10,000 torrents, fifty packets a second of a host that
// announced one of them from ever other ports cost a core, and so did each Join.
func TestLooksCostLittle(t *testing.T) {
	l := New(Config{
		Listen: func(string, netip.AddrPort) (net.PacketConn, error) { return nil, errors.New("no multicast here") },
		Port:   func() uint16 { return 6881 }, Log: slog.New(slog.DiscardHandler),
	})
	for i := range 10_000 {
		l.Join([20]byte{byte(i >> 8), byte(i)}, func(netip.AddrPort) bool { return true })
	}
	now := time.Now()
	for range announceBurst {
		hashes, _ := l.due(now)
		require.Len(t, hashes, announceBatch)
	}
	require.Zero(t, testing.AllocsPerRun(10, func() {
		hashes, next := l.due(now)
		if hashes != nil || !next.After(now) {
			t.Error("announced too much")
		}
	}))
}
