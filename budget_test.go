package torrent

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent/internal/wire"
)

// slowSeeds are n scripted peers that have everything and send a byte now and then, so that a download
// keeps as many of them as it may.
func slowSeeds(t *testing.T, n *simNet, net byte, count int, content *simContent) (addrs []netip.AddrPort) {
	for k := range count {
		p := newSimPeer("slow", n.host(fmt.Sprintf("81.%d.%d.1", net, k), 1000, 0, 0), 6881, content, simScript{fast: true})
		require.NoError(t, p.arrive())
		t.Cleanup(p.stop)
		addrs = append(addrs, p.addr())
	}
	return addrs
}

func connected(all ...*Download) (each []int) {
	for _, d := range all {
		each = append(each, len(d.Stats().Peers))
	}
	return each
}

// Connections that others make count as well.
func TestBudgetHoldsForIncoming(t *testing.T) {
	simulate(t, func(t *testing.T, n *simNet) {
		content := newSimContent(1, blockSize, 4*blockSize)
		us := n.host("80.0.0.1", 0, 0, 0)
		c := simClient(t, us, nil)
		c.MaxPeers = 10
		d := simSeed(t, c, content)
		after(time.Second)
		for k := range 20 {
			s := speak(t, n.host(fmt.Sprintf("81.0.0.%d", k), 0, 0, 0), content, us.addr(6881), speech{fast: true})
			s.sayID(wire.Interested)
		}
		after(time.Second)
		require.Equal(t, []int{10}, connected(d))
	})
}

// Who came first has no right to stay ahead: a download below its share gets it from those above theirs.
func TestBudgetIsDealtFairly(t *testing.T) {
	simulate(t, func(t *testing.T, n *simNet) {
		c := simClient(t, n.host("80.0.0.1", 0, 0, 0), nil)
		c.MaxPeers = 60
		var all []*Download
		for k := range byte(3) {
			content := newSimContent(uint64(k+1), 64<<10, 16<<20)
			all = append(all, simLeech(t, c, content, slowSeeds(t, n, k, 100, content)...))
			for range 60 {
				after(time.Second)
				sum := 0
				for _, k := range connected(all...) {
					sum += k
				}
				require.LessOrEqual(t, sum, 60)
			}
			for _, n := range connected(all...) {
				require.InDelta(t, 60/len(all), n, 8, "%v", connected(all...))
			}
		}
		require.NoError(t, all[0].Close())
		after(time.Minute)
		require.Zero(t, connected(all[0])[0])
		for _, n := range connected(all[1:]...) {
			require.InDelta(t, 30, n, 8, "what it had goes to the others")
		}
	})
}

// A peer that neither side wants anything of makes room for another.
func TestUselessPeersMakeRoom(t *testing.T) {
	simulate(t, func(t *testing.T, n *simNet) {
		content := newSimContent(1, blockSize, 4*blockSize)
		us := n.host("80.0.0.1", 0, 0, 0)
		c := simClient(t, us, nil)
		c.UploadLimit = rate.NewLimiter(blockSize, blockSize)
		d, err := content.Start(t.Context(), &Options{Client: c, MaxPeers: 5, Seed: true, Storage: newSimStorage(content).fill().open})
		require.NoError(t, err)
		after(time.Second)
		var useless []*speaker
		for k := range 5 {
			useless = append(useless, speak(t, n.host(fmt.Sprintf("81.0.0.%d", k), 0, 0, 0), content, us.addr(6881), speech{fast: true}))
		}
		after(time.Second)
		first := simLeech(t, simClient(t, n.host("82.0.0.1", 0, 0, 0), nil), content, us.addr(6881))
		after(time.Second)
		require.Empty(t, first.Stats().Peers, "each is given a minute to show what it wants")
		require.NoError(t, first.Close())
		after(time.Minute)
		second := simLeech(t, simClient(t, n.host("82.0.0.2", 0, 0, 0), nil), content, us.addr(6881))
		after(10 * time.Second)
		require.True(t, second.Stats().Complete)
		require.LessOrEqual(t, len(d.Stats().Peers), 5)
		hungUp := 0
		for _, s := range useless {
			if s.hungUp() {
				hungUp++
			}
		}
		require.Equal(t, 1, hungUp)
	})
}
