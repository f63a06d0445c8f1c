package torrent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/simnet/simweb"
)

// Peers that trickle do not keep a block from a server that sends it in any case, which would have to send the whole file again.
func TestWebSeedRangelessBesideSlowPeers(t *testing.T) {
	foundWeb(t, newSimRepeating(1, 256<<10, 20e6), func(t *testing.T, m *simWebMeeting) {
		w := m.serve(t, 2e6, simweb.Script{Rangeless: true})
		for range 6 {
			m.meet(t, 1e3, simpeer.Script{})
		}
		s := m.run(t, 10*time.Minute)
		n, sent := w.Served()
		t.Logf("took %v, %d requests, %d bytes of %d", m.client.took, n, sent, s.Length)
		require.LessOrEqual(t, float64(sent), 1.1*float64(s.Length))
	})
}

// Servers that answer nothing do not take blocks back, again and again, from a slow seed that sends them. It used to take 200 s
// beside one of them, and 560 s beside two, because what was taken from them made them forget their silence.
func TestWebSeedsThatHang(t *testing.T) {
	const rate, size = 5e3, 63e3
	for servers := 1; servers <= 2; servers++ {
		foundWeb(t, newSimContent(1, 32<<10, 40e3, size-40e3), func(t *testing.T, m *simWebMeeting) {
			m.meet(t, rate, simpeer.Script{Fast: true})
			for range servers {
				m.serve(t, 1e6, simweb.Script{Hangs: true})
			}
			m.run(t, 10*time.Minute)
			t.Logf("beside %d, took %v, %d thefts", servers, m.client.took, m.client.Stats().Steals)
			require.Less(t, m.client.took.Seconds(), 3*size/rate)
		})
	}
}
