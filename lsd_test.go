package torrent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
)

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

// Private torrents are kept from the local network, as BEP 27 says; the others are looked for as long as they
// are downloaded.
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
