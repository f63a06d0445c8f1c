package torrent

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/simnet"
)

// What Allow refuses, and what Ban does, is refused whoever names it, by TCP and uTP, both ways.
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

// A node of the DHT that Allow refuses is neither asked nor answered, whoever names it.
func TestAllowInTheDHT(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		router := dhtNetwork(t, n, 5)
		s := newSpy(n.NewHost("85.0.0.1", 0, 0, 0))
		c := dhtClient(t, s.host, router, "81.2.0.1:6881")
		c.Dial, c.ListenPacket, c.hooks = nil, nil, s.hooks()
		refused := netip.MustParseAddr("81.2.0.1")
		c.Allow = func(a netip.Addr) bool { return a != refused }
		node := c.DHT()
		c.heardOfNode(netip.AddrPortFrom(refused, 6881))
		simnet.Sleep(10 * time.Minute)
		require.Equal(t, 4, node.Stats().NodesIPv4)
		require.NotEmpty(t, s.seen("DHT packet 81.1.0.1:"))
		require.Empty(t, s.seen("packet 81.2.0.1:"))
		for _, a := range node.Nodes() {
			require.NotContains(t, a, "81.2.0.1")
		}
	})
}
