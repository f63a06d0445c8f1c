package torrent

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/simnet"
)

// listen has a giver take connections until ctx ends.
func (g *giver) listen(ctx context.Context, t *testing.T) netip.AddrPort {
	l, err := g.host.Listen("tcp", ":6881")
	require.NoError(t, err)
	context.AfterFunc(ctx, func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go g.speak(ctx, conn)
		}
	}()
	return g.host.Addr(6881)
}

// Three times as many peers as there are places can be dialled, and earn these with little, so that the seed that the same tracker names
// waits behind many of them. It still gets in soon.
func TestSeedBehindCandidatesThatGiveLittle(t *testing.T) {
	for _, tc := range []struct {
		name, addr string
		within     time.Duration
	}{
		{"each of a network of its own", "%d.0.0.1", 12 * time.Minute},
		{"all of one network", "66.0.%d.1", 6 * time.Minute},
		{"all of one network of IPv6", "2001:db8:1:%x::1", 6 * time.Minute},
	} {
		for chance := range uint64(3) {
			t.Run(fmt.Sprint(tc.name, " ", chance), func(t *testing.T) {
				skipUnderRace(t, chance > 0 || tc.within > 6*time.Minute)
				amongGivers(t, func(ctx context.Context, t *testing.T, n *simnet.Network) {
					content := newSimRepeating(1, 4*blockSize, 8192*blockSize)
					c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil)
					c.hooks.seed += chance
					d, err := content.Start(t.Context(), &Options{Client: c, MaxPeers: 20, Storage: newSimStorage(content).open})
					require.NoError(t, err)
					var crowd []netip.AddrPort
					for k := range 60 {
						g := &giver{n.NewHost(fmt.Sprintf(tc.addr, 100+k), 0, 0, 10*time.Millisecond), content, 24 * time.Hour}
						crowd = append(crowd, g.listen(ctx, t))
					}
					d.discovery.found(peerlist.FromTracker, "tracker", crowd...)
					simnet.Sleep(6 * time.Minute)
					seed := honestSeed(t, n, content)
					defer seed.Stop()
					d.discovery.found(peerlist.FromTracker, "tracker", seed.Addr())
					for waited := time.Duration(0); waited < tc.within && !d.Stats().Complete; waited += time.Minute {
						simnet.Sleep(time.Minute)
					}
					require.True(t, d.Stats().Complete || connectedTo(d, seed.Addr()))
				})
			})
		}
	}
}
