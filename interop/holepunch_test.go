//go:build linux

package interop

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent"
)

// natRules are those of a router at home: it masquerades, and lets in nothing but answers.
const natRules = `
table inet filter {
	chain forward {
		type filter hook forward priority 0
		policy accept
		iifname "wan" ct state established,related accept
		iifname "wan" drop
	}
	chain input {
		type filter hook input priority 0
		iifname "wan" drop
	}
	chain postrouting {
		type nat hook postrouting priority 100
		oifname "wan" masquerade
	}
}`

// newBehindNAT makes a host behind a router whose outer address is outside, of the network that the peer at
// the Internet's bridge has.
func newBehindNAT(t *testing.T, internet *host, name, outside, inside string) *host {
	t.Helper()
	router, h := newHost(t, name+"-router"), newHost(t, name)
	internet.link(t, name, router, "wan")
	internet.ip(t, "link set "+name+" master bridge")
	h.link(t, "lan0", router, "lan")
	router.ip(t, "addr add "+outside+"/24 dev wan", "addr add "+inside+".1/24 dev lan")
	h.ip(t, "addr add "+inside+".2/24 dev lan0", "route add default via "+inside+".1")
	router.write(t, "/proc/sys/net/ipv4/ip_forward", "1")
	router.nft(t, natRules)
	return h
}

// newClientOn is a client whose sockets are on a host. It has uTP alone.
func newClientOn(t *testing.T, h *host, port string) *torrent.Client {
	t.Helper()
	var log logBuffer
	c := &torrent.Client{
		NoDHT: true, NoTCP: true,
		Listen: ":" + port,
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		ListenPacket: func(ctx context.Context, network, addr string) (c net.PacketConn, err error) {
			if network == "udp6" {
				return nil, net.UnknownNetworkError(network)
			}
			err = h.do(func() error {
				c, err = net.ListenPacket(network, addr)
				return err
			})
			return c, err
		},
	}
	t.Cleanup(func() {
		c.Close()
		if t.Failed() {
			t.Logf("this library on %s logged:\n%s", h.name, tail(log.String(), 4000))
		}
	})
	return c
}

// TestHolePunch has two clients behind routers of their own reach each other, when one that is connected to both introduces
// them (BEP 55). One of them does not listen, so that the other one does not hear of it from peer exchange.
func TestHolePunch(t *testing.T) {
	t.Parallel()
	for _, relay := range []client{library, libtorrent} {
		t.Run(relay.name, func(t *testing.T) {
			need(t, append([]string{"nft", "ip", "nsenter"}, relay.programs...)...)
			t.Parallel()
			if !ownNetwork(t) {
				return
			}
			const middle, left, right = "11.22.33.1", "11.22.33.2", "11.22.33.3"
			here().ip(t, "link set lo up", "link add bridge type bridge", "addr add "+middle+"/24 dev bridge", "link set bridge up")
			seeder := newBehindNAT(t, here(), "left", left, "192.168.1")
			leecher := newBehindNAT(t, here(), "right", right, "192.168.2")
			content := t.TempDir()
			makeContent(t, content)
			what := makeWithLibrary(torrent.V1)(t, content, "")

			known := netip.MustParseAddrPort(middle + ":6881")
			if relay.name == library.name {
				c := newClientOn(t, here(), "6881")
				c.DownloadLimit = rate.NewLimiter(1000, 16<<10)
				new(libraryPeer).start(t, c, role{what: what, dir: t.TempDir()})
			} else {
				run(t, pythonLibtorrent, scratch(t, "peer.py", libtorrentScript), what, t.TempDir(), middle, "--transport", "utp", "--down", "1000").awaitText(t, "ready")
			}
			c := newClientOn(t, seeder, "6881")
			c.UploadLimit = rate.NewLimiter(100e3, 16<<10)
			new(libraryPeer).start(t, c, role{what: what, dir: content}, known)
			c = newClientOn(t, leecher, "6881")
			c.NoListen = true
			var d libraryPeer
			d.start(t, c, role{what: what, dir: t.TempDir()}, known)

			began := time.Now()
			require.Eventually(t, func() bool {
				for _, p := range d.Stats().Peers {
					if p.Addr.Addr().String() == left && p.Transport == "utp" && p.Downloaded > 0 {
						return true
					}
				}
				return false
			}, rumour, 100*time.Millisecond)
			t.Logf("relay %s: through both routers after %v", relay.name, time.Since(began).Round(100*time.Millisecond))
		})
	}
}
