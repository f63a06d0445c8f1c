package torrent

import (
	"testing"
	"time"

	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/stretchr/testify/require"
)

// Five hundred peers that have half of the pieces each are as fast as our downlink, and take few blocks
// from each other on the way.
func TestFiveHundredPeers(t *testing.T) {
	t.Parallel()
	const size, peers, rate, downlink = 128 << 20, 500, 100e3, 40e6
	found(t, newSimRepeating(1, 64<<10, size), func(t *testing.T, m *simMeeting) {
		for k := range peers {
			p := m.meet(t, rate, simpeer.Script{})
			for i := range m.content.NumPieces() {
				if (i*31+k*17)%7 < 3 {
					p.Have.Remove(i)
				}
			}
		}
		m.host = m.net.NewHost("81.0.0.1", 0, downlink, 10*time.Millisecond)
		m.options.MaxPeers = peers
		m.run(t, time.Hour)
		s := m.client.Stats()
		t.Logf("took %v, wasted %d bytes, %d thefts", m.client.took, s.Wasted, s.Steals)
		require.Less(t, m.client.took.Seconds(), 1.2*size/downlink+10)
		require.Less(t, s.Wasted, int64(size/10))
	})
}
