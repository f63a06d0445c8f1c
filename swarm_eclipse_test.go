package torrent

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/wire"
)

// keepsPlace is how those behave that want nothing but the place: they claim everything, are interested, and send
// keep-alives. They come back whenever they are dropped.
var keepsPlace = simpeer.Script{
	ClaimsAll: true, Never: simpeer.Unchokes,
	Opening: func(c *simpeer.Content) []byte {
		b := make([]byte, c.NumPieces()/8)
		for i := range b {
			b[i] = 0xff
		}
		return wire.AppendSimple(wire.AppendBitfield(nil, b), wire.Interested)
	},
	Noise: []simpeer.Noise{simpeer.Noises()[13]}, NoiseEvery: 100 * time.Second,
}

// A crowd holds all places before honest seeds come. These get in all the same, whether they call or have to be
// called, and the download completes.
func TestEclipse(t *testing.T) {
	client := netip.MustParseAddrPort("81.0.0.1:6881")
	for _, crowd := range []struct {
		name  string
		addr  func(k int) string
		hosts int
	}{
		{"one /64 of IPv6", func(k int) string { return fmt.Sprintf("2001:db8::%x", k+1) }, 100},
		{"one /24 of IPv4", func(k int) string { return fmt.Sprintf("66.0.0.%d", k+1) }, 100},
		{"27 addresses", func(k int) string { return fmt.Sprintf("%d.%d.3.4", 100+k, k) }, 27},
	} {
		for _, called := range []bool{false, true} {
			name := crowd.name + ", seeds call"
			if called {
				name = crowd.name + ", seeds are called"
			}
			t.Run(name, func(t *testing.T) {
				content := newSimContent(1, 64<<10, 16<<20)
				simnet.Run(t, func(t *testing.T, n *simnet.Network) {
					m := &simMeeting{net: n, content: content, host: n.NewHost("81.0.0.1", 0, 0, 10*time.Millisecond)}
					defer m.end(t)
					m.client = simStart(t.Context(), t, m.host, content, nil, nil, nil)
					for k := range crowd.hosts {
						p := simpeer.New("crowd", n.NewHost(crowd.addr(k), 1e6, 0, 10*time.Millisecond), 6881, content.truth, keepsPlace)
						require.NoError(t, p.Arrive())
						m.peers = append(m.peers, p)
						p.Call(min(3, 100/crowd.hosts), client, 5*time.Second)
					}
					simnet.Sleep(2 * time.Minute)
					require.Len(t, m.client.Stats().Peers, 80, "the crowd has all places")

					var seeds []netip.AddrPort
					for k := range 11 {
						p := simpeer.New("seed", n.NewHost(fmt.Sprintf("90.%d.0.1", k), 20e3, 0, 10*time.Millisecond), 6881, content.truth, simpeer.Script{Fast: true})
						require.NoError(t, p.Arrive())
						m.peers = append(m.peers, p)
						seeds = append(seeds, p.Addr())
						if !called {
							p.Call(1, client, 5*time.Second)
						}
					}
					if called {
						m.client.discovery.found(7, "", seeds...) // by peer exchange
					}
					came := time.Now()
					var all time.Duration // until the last was in
					for all == 0 && time.Since(came) < 5*time.Minute {
						simnet.Sleep(time.Second)
						in := 0
						for _, p := range m.client.Stats().Peers {
							if p.Addr.Addr().Is4() && p.Addr.Addr().As4()[0] == 90 {
								in++
							}
						}
						if in == len(seeds) {
							all = time.Since(came)
						}
					}
					require.NotZero(t, all, "not all seeds got in")
					simWait(5*time.Minute, m.client)
					require.True(t, m.client.done(), "%s", m.client.describe())
					require.NoError(t, m.client.compare(nil))
					t.Logf("all seeds were in after %v, complete after %v", all, time.Since(came))
				})
			})
		}
	}
}
