package torrent

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent/internal/simnet"
)

// A long bitfield counts against the limit as blocks do, and hosts that reconnect get no more of it. Peers that come while a limit lets
// nothing pass are told at once what we have.
func TestLimitCountsBitfields(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		const limit, window, pieces = 16 << 10, 100 * time.Second, 100_000
		const bitfield = pieces / 8
		content := newSimContent(1, 1, pieces)
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		c := simClient(t, us, nil)
		c.UploadLimit = drained(limit, 16<<10)
		simSeed(t, c, content)
		simnet.Sleep(time.Second)
		connect := func(network, host int) *speaker {
			return speak(t, n.NewHost(fmt.Sprintf("80.%d.1.%d", network, host), 0, 0, 0), content, us.Addr(6881), speech{})
		}
		told := func(s *speaker) bool { return slices.Contains(s.take(), "bitfield") }
		sent, began := 0, time.Now()
		for round := 0; time.Since(began) < window; round++ {
			var greedy []*speaker
			for k := range 8 {
				greedy = append(greedy, connect(k, 1+round))
			}
			simnet.Sleep(2 * time.Second)
			for _, s := range greedy {
				if told(s) {
					sent += bitfield
				}
				s.Close()
			}
		}
		require.LessOrEqual(t, float64(sent), 1.1*limit*window.Seconds())
		require.Greater(t, sent, 20*bitfield)

		simnet.Sleep(5 * time.Second)
		honest := connect(100, 1)
		simnet.Sleep(2 * time.Second)
		require.True(t, told(honest))

		c.UploadLimit.SetLimit(rate.Limit(0))
		for k := range 8 {
			s := connect(101+k, 1)
			simnet.Sleep(time.Second)
			require.True(t, told(s))
		}
	})
}

// Under a low upload limit, many hosts that connect wait for the bitfield of a leech. The peers that it dials hear at once what it has.
func TestDialledPeersAreGreetedAtOnce(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		const pieces = 100_000
		content := newSimContent(1, 1, pieces)
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		c := simClient(t, us, nil)
		c.UploadLimit = drained(2<<10, 1<<10)
		half := newSimStorage(content)
		for block := range half.written.Len() / 2 {
			half.written.Add(block)
		}
		d, err := content.Start(t.Context(), &Options{Client: c, Storage: half.open})
		require.NoError(t, err)
		simnet.Sleep(time.Minute) // it hashes what is there
		require.EqualValues(t, pieces/2, d.Stats().Verified)
		for k := range 40 {
			speak(t, n.NewHost(fmt.Sprintf("80.%d.1.1", 1+k), 0, 0, 0), content, us.Addr(6881), speech{})
		}

		host := n.NewHost("81.0.0.1", 0, 0, 0)
		honest := simClient(t, host, nil)
		honest.UploadLimit = drained(1, 1<<10)
		seed := simSeed(t, honest, content)
		d.AddPeers(host.Addr(6881))
		simnet.Sleep(5 * time.Second)
		require.Len(t, seed.Stats().Peers, 1)
		require.Positive(t, seed.Stats().Peers[0].Pieces)
	})
}
