package torrent

import (
	"context"
	"iter"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
)

// A function of the user's finds peers for a magnet link and for the download that follows, and is asked again while no
// peer is connected.
func TestFindPeers(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimResolvable(t, 4, false)
		seed := n.NewHost("80.0.0.2", 0, 0, 0)
		var asked []time.Duration
		began := time.Now()
		o := &Options{
			Client: simClient(t, n.NewHost("80.0.0.1", 0, 0, 0), nil),
			FindPeers: func(ctx context.Context, h Hash) iter.Seq[netip.AddrPort] {
				require.Equal(t, content.infoHash, h)
				asked = append(asked, time.Since(began))
				return func(yield func(netip.AddrPort) bool) { yield(seed.Addr(6881)) }
			},
		}
		go func() {
			simnet.Sleep(90 * time.Second) // the first two searches find a host without a client
			simSeed(t, simClient(t, seed, nil), content)
		}()
		m := &Magnet{InfoHash: content.infoHash}
		tor, err := m.Resolve(t.Context(), o)
		require.NoError(t, err)
		require.Equal(t, []time.Duration{0, time.Minute, 2 * time.Minute}, asked[:3])

		asked, began = nil, time.Now()
		o.Storage = newSimStorage(content).open
		o.Seed = true
		d, err := tor.Start(t.Context(), o)
		require.NoError(t, err)
		_, err = d.Wait()
		require.NoError(t, err)
		simnet.Sleep(16 * time.Minute)
		require.Equal(t, []time.Duration{0, 15 * time.Minute}, asked, "with a peer there is no hurry")
	})
}
