package torrent

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
)

// Whom Allow refuses is neither dialled nor accepted, whoever names it, and nor is it resolved from.
func TestAllow(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 16*blockSize)
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		bad, good := n.NewHost("81.0.0.1", 1e6, 0, 0), n.NewHost("82.0.0.1", 10e3, 0, 0)
		var dialled dialRecord
		c := simClient(t, us, nil)
		c.Dial, c.NoUTP = dialled.of(us), true
		refused := netip.MustParsePrefix("81.0.0.0/8")
		forbidden := false
		c.Allow = func(a netip.Addr) bool { return !forbidden || !refused.Contains(a) }
		late := netip.MustParseAddrPort("81.9.9.9:1")
		d := simLeech(t, c, content)
		d.discovery.found(peerlist.FromDHT, "", late) // known before it is forbidden
		forbidden = true
		for _, h := range []*simnet.Host{bad, good} {
			p := simpeer.New("peer", h, 6881, content.truth, simpeer.Script{Fast: true})
			require.NoError(t, p.Arrive())
			defer p.Stop()
			for _, from := range []peerlist.Source{peerlist.FromUser, peerlist.FromTracker, peerlist.FromDHT} {
				d.discovery.found(from, "", p.Addr())
			}
			if h == bad {
				p.Call(3, us.Addr(6881), time.Second)
			}
		}
		simnet.Sleep(time.Second)
		s := speak(t, bad, content, us.Addr(6881), speech{fast: true})
		simnet.Sleep(time.Second)
		require.True(t, s.hungUp())
		simnet.Sleep(time.Minute)
		require.True(t, d.Stats().Complete)
		require.Zero(t, dialled.count(refused.Contains))
	})
}

// Ban is for every port of an address, also of a local one, and of peers that the user named before or after.
func TestBanByUser(t *testing.T) {
	for _, ip := range []string{"81.0.0.1", "10.0.0.1"} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimContent(1, blockSize, 64*blockSize)
			us, them := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost(ip, 20e3, 0, 0)
			d := simLeech(t, simClient(t, us, nil), content)
			var events []Event
			go func() {
				for e := range d.Events(t.Context()) {
					if e.Kind == PeerBanned {
						events = append(events, e)
					}
				}
			}()
			for port := range uint16(2) {
				p := simpeer.New(fmt.Sprint("peer ", port), them, 6881+port, content.truth, simpeer.Script{Fast: true})
				require.NoError(t, p.Arrive())
				defer p.Stop()
				d.AddPeers(p.Addr())
			}
			speak(t, them, content, us.Addr(6881), speech{fast: true})
			simnet.Sleep(5 * time.Second)
			require.Len(t, d.Stats().Peers, 3)

			d.Ban(netip.AddrFrom16(them.IP().As16()))
			simnet.Sleep(time.Second)
			require.Empty(t, d.Stats().Peers)
			require.Equal(t, 1, d.Stats().Banned)
			require.Len(t, events, 1)
			require.Equal(t, netip.AddrPortFrom(them.IP(), 0), events[0].Peer)
			require.ErrorIs(t, events[0].Err, errBannedByUser)
			d.AddPeers(them.Addr(6881), them.Addr(6882))
			s := speak(t, them, content, us.Addr(6881), speech{fast: true})
			simnet.Sleep(time.Second)
			require.True(t, s.hungUp())
			simnet.Sleep(5 * time.Minute)
			require.Empty(t, d.Stats().Peers)
			d.Ban(netip.Addr{})
		})
	}
}
