package torrent

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/stretchr/testify/require"
)

// simLAN carries multicast between the hosts of a simulated network that joined a group.
type simLAN struct {
	mu      sync.Mutex
	members map[netip.AddrPort][]net.Addr // by group
	said    []string                      // what was sent
}

// simMember is a socket of a member.
type simMember struct {
	net.PacketConn
	lan *simLAN
}

func (l *simLAN) listener(h *simnet.Host) func(string, netip.AddrPort) (net.PacketConn, error) {
	return func(network string, group netip.AddrPort) (net.PacketConn, error) {
		if group.Addr().Is4() != h.IP().Is4() {
			return nil, errors.New("no such family here")
		}
		conn, err := h.ListenPacket(network, fmt.Sprintf(":%d", group.Port()))
		if err != nil {
			return nil, err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.members == nil {
			l.members = map[netip.AddrPort][]net.Addr{}
		}
		l.members[group] = append(l.members[group], conn.LocalAddr())
		return simMember{conn, l}, nil
	}
}

func (m simMember) WriteTo(b []byte, to net.Addr) (int, error) {
	m.lan.mu.Lock()
	members := m.lan.members[to.(*net.UDPAddr).AddrPort()]
	m.lan.said = append(m.lan.said, string(b))
	m.lan.mu.Unlock()
	for _, member := range members {
		if _, err := m.PacketConn.WriteTo(b, member); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// take is what was sent since the last time.
func (l *simLAN) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	said := l.said
	l.said = nil
	return said
}

func (l *simLAN) client(t *testing.T, h *simnet.Host) *Client {
	c := simClient(t, h, nil)
	c.LocalDiscovery, c.hooks.listenMulticast = true, l.listener(h)
	return c
}

func TestLSDBringsPeersTogether(t *testing.T) {
	for _, six := range []bool{false, true} {
		t.Run(fmt.Sprintf("IPv6 %t", six), func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				lan := new(simLAN)
				ips := []string{"192.168.0.1", "192.168.0.2"}
				if six {
					ips = []string{"fd00::1", "fd00::2"}
				}
				content := newSimContent(1, 64<<10, 1<<20)
				simSeed(t, lan.client(t, n.NewHost(ips[0], 0, 0, time.Millisecond)), content)
				simnet.Sleep(2 * time.Minute)
				us := lan.client(t, n.NewHost(ips[1], 0, 0, time.Millisecond))
				files, err := content.DownloadAll(t.Context(), &Options{Client: us, Storage: newSimStorage(content).open})
				require.NoError(t, err)
				files.Close()
				require.Less(t, n.Now(), 2*time.Minute+5*time.Second, "who is new is heard, and answered")
			})
		})
	}
}

func TestLSDResolves(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		lan, content := new(simLAN), newSimResolvable(t, 1000, false)
		simSeed(t, lan.client(t, n.NewHost("192.168.0.1", 0, 0, time.Millisecond)), content)
		simnet.Sleep(2 * time.Minute)
		m := &Magnet{InfoHash: content.infoHash}
		got, err := m.Resolve(t.Context(), &Options{Client: lan.client(t, n.NewHost("192.168.0.2", 0, 0, time.Millisecond))})
		require.NoError(t, err)
		require.Equal(t, content.info, got.info)
		require.Less(t, n.Now(), 2*time.Minute+5*time.Second)
	})
}

func TestLSDAnnounces(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		lan := new(simLAN)
		us, other := n.NewHost("192.168.0.1", 0, 0, 0), n.NewHost("192.168.0.2", 0, 0, 0)
		client := lan.client(t, us)
		first, private := newSimContent(1, 64<<10, 1<<20), newSimContent(2, 64<<10, 1<<20)
		private.private = true
		d := simLeech(t, client, first)
		simLeech(t, client, private)
		simnet.Sleep(time.Second)
		cookie := client.local.cookie
		want := "BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 6881\r\n" +
			"Infohash: 0000000000000001000000000000000000000001\r\ncookie: " + cookie + "\r\n\r\n\r\n"
		require.Equal(t, []string{want}, lan.take())
		require.Zero(t, d.Stats().Known, "we hear ourselves")
		simnet.Sleep(4*time.Minute + 58*time.Second)
		require.Empty(t, lan.take())
		simnet.Sleep(2 * time.Second)
		require.Len(t, lan.take(), 1, "every five minutes")

		s, err := lan.listener(other)("udp4", lsdGroups()[0].addr)
		require.NoError(t, err)
		defer s.Close()
		say := func(port uint16, cookie string, of ...Hash) {
			_, err := s.WriteTo(appendLSD(nil, lsdGroups()[0].addr, port, of, cookie), net.UDPAddrFromAddrPort(lsdGroups()[0].addr))
			require.NoError(t, err)
			lan.take()
			simnet.Sleep(time.Second)
		}
		say(1, "x", Hash{1}, private.infoHash)
		require.Empty(t, lan.take(), "it speaks of nothing that concerns others")
		say(1, "", first.infoHash)
		require.Equal(t, 1, d.Stats().Known)
		require.Empty(t, lan.take(), "not within a minute")
		simnet.Sleep(time.Minute)
		require.Len(t, lan.take(), 1, "somebody new is answered")
		say(1, "", first.infoHash)
		simnet.Sleep(2 * time.Minute)
		require.Empty(t, lan.take(), "but once")

		for k := range 1000 {
			s.WriteTo(appendLSD(nil, lsdGroups()[0].addr, uint16(k+1), []Hash{first.infoHash}, ""), net.UDPAddrFromAddrPort(lsdGroups()[0].addr))
		}
		lan.take()
		simnet.Sleep(time.Second)
		require.Less(t, d.Stats().Known, 2*lsdHeard+10, "a flood is cut")
		simnet.Sleep(time.Minute)
		lan.take()

		require.NoError(t, d.Close())
		simnet.Sleep(10 * time.Minute)
		require.Empty(t, lan.take())
	})
}

func TestLSDGathersTorrents(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		lan := new(simLAN)
		client := lan.client(t, n.NewHost("192.168.0.1", 0, 0, 0))
		for k := range 45 {
			simLeech(t, client, newSimContent(uint64(k+1), 64<<10, 1<<10))
		}
		simnet.Sleep(30 * time.Minute)
		said := map[string]int{}
		packets := lan.take()
		for _, p := range packets {
			require.LessOrEqual(t, len(p), lsdPacket)
			_, hashes, _, ok := parseLSD([]byte(p))
			require.True(t, ok)
			for _, h := range hashes {
				said[h.String()]++
			}
		}
		require.Len(t, said, 45)
		require.LessOrEqual(t, len(packets), 30+lsdBurst, "one a minute in the long run")
		for h, times := range said {
			require.InDelta(t, 6, times, 1, h)
		}
	})
}

func TestLSDWithoutGroupOrListener(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		lan, content := new(simLAN), newSimContent(1, 64<<10, 1<<20)
		none := simClient(t, n.NewHost("192.168.0.3", 0, 0, 0), nil)
		none.LocalDiscovery = true
		none.hooks.listenMulticast = func(string, netip.AddrPort) (net.PacketConn, error) { return nil, errors.New("no multicast here") }
		simSeed(t, none, content)
		_, err := new(Magnet).Resolve(t.Context(), &Options{Client: none})
		require.ErrorIs(t, err, ErrUnsupported)

		deaf := lan.client(t, n.NewHost("192.168.0.1", 0, 0, 0))
		deaf.NoListen = true
		simLeech(t, deaf, content)
		simnet.Sleep(time.Minute)
		require.Empty(t, lan.take(), "nobody could connect")
		simSeed(t, lan.client(t, n.NewHost("192.168.0.2", 0, 0, 0)), content)
		simnet.Sleep(10 * time.Second)
		for d := range deaf.Downloads() {
			require.True(t, d.Stats().Complete)
		}
	})
}

func TestParseLSD(t *testing.T) {
	h1, h2 := strings.Repeat("0a", 20), strings.Repeat("FF", 20)
	for _, c := range []struct {
		name, packet string
		port         uint16
		hashes       int
		cookie       string
	}{
		{"as it should be", "BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 6881\r\nInfohash: " + h1 + "\r\ncookie: x y\r\n\r\n\r\n", 6881, 1, "x y"},
		{"several torrents, one twice", "BT-SEARCH * HTTP/1.1\r\nPort: 1\r\nInfohash: " + h1 + "\r\nInfohash: " + h2 + "\r\nInfohash: " + h1 + "\r\n\r\n", 1, 2, ""},
		{"other case, spaces and ends of lines", "BT-SEARCH * HTTP/1.0\nPORT:65535\nX: y\nINFOHASH :" + h2 + " \n", 65535, 1, ""},
		{"a malformed hash beside another", "BT-SEARCH * HTTP/1.1\r\nPort: 1\r\nInfohash: 00\r\nInfohash: " + h1[1:] + "x\r\nInfohash: " + h1 + "\r\n\r\n", 1, 1, ""},
		{"what comes behind the end", "BT-SEARCH * HTTP/1.1\r\nInfohash: " + h1 + "\r\n\r\nPort: 1\r\n", 0, 0, ""},
		{"no port", "BT-SEARCH * HTTP/1.1\r\nInfohash: " + h1 + "\r\n\r\n", 0, 0, ""},
		{"port 0", "BT-SEARCH * HTTP/1.1\r\nPort: 0\r\nInfohash: " + h1 + "\r\n\r\n", 0, 0, ""},
		{"a port too high", "BT-SEARCH * HTTP/1.1\r\nPort: 65536\r\nInfohash: " + h1 + "\r\n\r\n", 0, 0, ""},
		{"no hash", "BT-SEARCH * HTTP/1.1\r\nPort: 1\r\n\r\n", 0, 0, ""},
		{"something else", "M-SEARCH * HTTP/1.1\r\nPort: 1\r\nInfohash: " + h1 + "\r\n\r\n", 0, 0, ""},
		{"nothing", "", 0, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			port, hashes, cookie, ok := parseLSD([]byte(c.packet))
			require.Equal(t, c.hashes > 0, ok)
			if ok {
				require.Equal(t, c.port, port)
				require.Len(t, hashes, c.hashes)
				require.Equal(t, c.cookie, cookie)
			}
		})
	}
}

func FuzzLSD(f *testing.F) {
	f.Add(appendLSD(nil, lsdGroups()[0].addr, 6881, []Hash{{1}, {2}}, "cookie"))
	f.Add(appendLSD(nil, lsdGroups()[1].addr, 1, []Hash{{1}}, ""))
	f.Add([]byte("BT-SEARCH * HTTP/1.1\nport:1\ninfohash:\n\n"))
	f.Fuzz(func(t *testing.T, p []byte) {
		port, hashes, cookie, ok := parseLSD(p)
		if !ok {
			return
		}
		for _, h := range hashes {
			hex := []byte(hex.EncodeToString(h[:]))
			if !bytes.Contains(bytes.ToLower(p), hex) {
				t.Fatalf("%s is not in %q", h, p)
			}
		}
		again := appendLSD(nil, lsdGroups()[0].addr, port, hashes, cookie)
		port2, hashes2, cookie2, ok := parseLSD(again)
		if !ok || port2 != port || cookie2 != cookie || !slices.Equal(hashes2, hashes) {
			t.Fatalf("%q was read as %q", p, again)
		}
	})
}
