package torrent

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/blockpool"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
)

// One honest seed among seven of other kinds: they cost no more than a tenth of the time that it would
// have taken alone, and the time after which a peer counts as snubbed.
func TestOneHonestAmongSeven(t *testing.T) {
	const rate, size = 1e6, 60e6
	for name, kinds := range map[string][7]simpeer.Script{
		"liars and idlers": {
			{Corrupt: 3}, {Corrupt: 20, Fast: true}, {Never: simpeer.Answers}, {Never: simpeer.Answers, Fast: true},
			{Flap: 300 * time.Millisecond}, {ResetAfter: 10}, {Drip: time.Second},
		},
		"noise and stalls": {
			{Noise: simpeer.Noises(), NoiseEvery: time.Second}, {Twice: true}, {StallAfter: 5}, {SendsLate: true, Flap: time.Second},
			{Floods: true}, {Shortens: 4}, {Never: simpeer.Reads},
		},
		"liars all":     {{Corrupt: 1}, {Corrupt: 2}, {Corrupt: 3}, {Corrupt: 5}, {Corrupt: 10}, {Corrupt: 30}, {Corrupt: 100}},
		"idlers all":    {{Never: simpeer.Answers}, {Never: simpeer.Answers}, {Never: simpeer.Answers}, {Never: simpeer.Answers}, {Never: simpeer.Answers}, {Never: simpeer.Answers}, {Never: simpeer.Answers}},
		"drippers all":  {{Drip: time.Second}, {Drip: time.Second}, {Drip: time.Second}, {Drip: time.Second}, {Drip: time.Second}, {Drip: time.Second}, {Drip: time.Second}},
		"stallers all":  {{StallAfter: 1}, {StallAfter: 10}, {StallAfter: 20}, {StallAfter: 40}, {StallAfter: 80}, {StallAfter: 160}, {StallAfter: 320}},
		"flappers all":  {{Flap: 1e8}, {Flap: 2e8}, {Flap: 5e8}, {Flap: 1e9, SendsLate: true}, {Flap: 2e9}, {Flap: 5e9}, {Flap: 1e10, DropsSilently: true, Fast: true}},
		"claimants all": {{ClaimsAll: true}, {ClaimsAll: true}, {ClaimsAll: true}, {ClaimsAll: true}, {ClaimsAll: true}, {ClaimsAll: true}, {ClaimsAll: true}},
	} {
		for _, pieceLength := range []int64{64 << 10, 256 << 10, 1 << 20, 8 << 20} {
			t.Run(fmt.Sprintf("%s, pieces of %d KiB", name, pieceLength>>10), func(t *testing.T) {
				t.Parallel()
				found(t, newSimContent(1, pieceLength, size), func(t *testing.T, m *simMeeting) {
					m.meet(t, rate, simpeer.Script{})
					for _, k := range kinds {
						p := m.meet(t, rate, k)
						if k.ClaimsAll {
							p.Have = bits.New(p.Have.Len())
						}
					}
					m.run(t, time.Hour)
					alone := size / rate
					require.LessOrEqual(t, m.client.took.Seconds(), 1.1*alone+snubTimeout.Seconds())
					t.Logf("took %v, alone %v s", m.client.took, alone)
				})
			})
		}
	}
}

// Seeds that differ much, or are many and slow, are together as fast as the sum of what they send,
// also where one of them, the slow one, had a head start and so chose where to begin.
func TestIdealTime(t *testing.T) {
	const size = 300e6
	for name, c := range map[string]struct {
		rates []float64
		head  time.Duration // before all but the first are there
	}{
		"one slow and three fast":             {rates: []float64{40e3, 20e6, 20e6, 20e6}},
		"one slow, and later three fast ones": {rates: []float64{40e3, 20e6, 20e6, 20e6}, head: 20 * time.Second},
		"thirty alike":                        {rates: slices.Repeat([]float64{1e6}, 30)},
	} {
		for _, pieceLength := range []int64{256 << 10, 1 << 20, 4 << 20, 16 << 20} {
			t.Run(fmt.Sprintf("%s, pieces of %d KiB", name, pieceLength>>10), func(t *testing.T) {
				t.Parallel()
				found(t, newSimRepeating(1, pieceLength, size), func(t *testing.T, m *simMeeting) {
					sum := 0.0
					for k, rate := range c.rates {
						sum += rate
						p := m.meet(t, rate, simpeer.Script{})
						if k > 0 && c.head > 0 {
							p.Depart()
							p.Come(c.head, 0, 0)
							p.Go(func() {
								if p.Wait(c.head) {
									p.Dial(netip.MustParseAddrPort("81.0.0.1:6881"))
								}
							})
						}
					}
					m.run(t, time.Hour)
					ideal := size / sum
					took := (m.client.took - c.head).Seconds()
					t.Logf("took %.3f s, ideal %.3f s: %.3f times", took, ideal, took/ideal)
					require.LessOrEqual(t, took, 1.05*ideal)
				})
			})
		}
	}
}

// However many slow peers there are, and however long the pieces, started pieces share one budget of
// memory, and that costs no time: what does not fit goes to storage block by block.
func TestStartedMemory(t *testing.T) {
	const size, peers, rate = 400e6, 70, 200e3
	for _, pieceLength := range []int64{1 << 20, 4 << 20, 16 << 20} {
		t.Run(fmt.Sprintf("pieces of %d KiB", pieceLength>>10), func(t *testing.T) {
			t.Parallel()
			found(t, newSimRepeating(1, pieceLength, size), func(t *testing.T, m *simMeeting) {
				for range peers {
					m.meet(t, rate, simpeer.Script{})
				}
				m.run(t, time.Hour)
				t.Logf("took %v, kept %d bytes at most", m.client.took, m.client.kept)
				require.LessOrEqual(t, m.client.kept, int64(blockpool.Limit))
				require.Less(t, m.client.took.Seconds(), 1.1*size/(peers*rate))
			})
		})
	}
}
