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
