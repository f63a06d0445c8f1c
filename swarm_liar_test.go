package torrent

import (
	"testing"
	"time"

	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/stretchr/testify/require"
)

// A peer that sends one false block of each of many pieces costs about what it sent. It used to cost all the pieces that
// it had a hand in: 400 of 400 MiB, and twice the time.
func TestLiarCostsWhatItSends(t *testing.T) {
	const rate = 2e6
	for name, pieceLength := range map[string]int64{"held in memory": 1 << 20, "written as they come": 8 << 20} {
		t.Run(name, func(t *testing.T) {
			found(t, newSimContent(1, pieceLength, 64<<20), func(t *testing.T, m *simMeeting) {
				for range 3 {
					m.meet(t, rate, simpeer.Script{Fast: true})
				}
				liar := m.meet(t, rate, simpeer.Script{Fast: true, Corrupt: 1, Scatters: true})
				m.run(t, time.Hour)
				s, a := m.client.Stats(), m.client.ledger.Account()
				t.Logf("took %v; %d of %d bytes wasted, after %d false bytes", m.client.took, s.Wasted, m.content.layout.Size(), a.LieBytes)
				require.NotZero(t, a.LieBytes)
				require.Less(t, s.Wasted, 3*a.LieBytes+pieceLength)
				require.Less(t, m.client.took.Seconds(), 1.2*64*(1<<20)/(3*rate))
				require.True(t, m.client.banned(liar.Addr()))
			})
		})
	}
}
