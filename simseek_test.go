package torrent

import (
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/stretchr/testify/require"
)

// A reader that seeks to the middle of a large file gets its first bytes within two round trips, the
// time that what was on the wire takes, and that of one piece at the peers' rate: what others were asked for
// is cancelled to make room.
func TestSeekDelay(t *testing.T) {
	t.Parallel()
	const rtt = 100 * time.Millisecond
	for _, pieceLength := range []int64{64 << 10, 256 << 10, 1 << 20, 4 << 20} {
		for name, rates := range map[string][]float64{
			"one peer":             {5e6},
			"four peers":           {2e6, 2e6, 2e6, 2e6},
			"one fast, three slow": {10e6, 200e3, 200e3, 200e3},
			"slow peers":           {100e3, 100e3, 100e3, 100e3},
		} {
			t.Run(fmt.Sprintf("pieces of %d KiB, %s", pieceLength>>10, name), func(t *testing.T) {
				found(t, newSimRepeating(1, pieceLength, 2<<30), func(t *testing.T, m *simMeeting) {
					sum := 0.0
					o := &Options{Storage: newSimStorage(m.content).open}
					for _, rate := range rates {
						sum += rate
						p := m.meet(t, rate, simpeer.Script{})
						p.Host.Delay = rtt / 4
						o.Peers = append(o.Peers, p.Addr())
					}
					host := m.net.NewHost("81.0.0.1", 0, 0, rtt/4)
					m.client = simStart(t.Context(), t, host, m.content, nil, o, nil)
					time.Sleep(10 * time.Second)

					r, err := m.client.Open(t.Context(), m.content.layout.File(0).Path)
					require.NoError(t, err)
					defer r.Close()
					for _, where := range []int64{1 << 30, 1<<29 + 12345, 3<<29 + 1} {
						_, err = r.Seek(where, io.SeekStart)
						require.NoError(t, err)
						wire := host.Clearing(blockSize) // with a block that each has begun
						start := time.Now()
						_, err = io.ReadFull(r, make([]byte, 1))
						require.NoError(t, err)
						took := time.Since(start)
						piece := time.Duration(float64(pieceLength) / sum * float64(time.Second))
						t.Logf("took %v, of round trips %v, on the wire %v, a piece %v", took, 2*rtt, wire, piece)
						// A block more, since blocks cannot be shared out evenly.
						block := time.Duration(blockSize / slices.Min(rates) * float64(time.Second))
						bound := 2*rtt + wire + piece + block
						require.LessOrEqual(t, took, bound)
						time.Sleep(5 * time.Second)
					}
				})
			})
		}
	}
}
