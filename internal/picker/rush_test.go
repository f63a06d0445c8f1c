package picker

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/layout"
)

// unlimited is an admit function that admits all requests.
func unlimited(_ []Request, n int) int { return n }

// A faster peer takes over the greater part of a rushed piece from a slow one, and its requests with a lower priority are
// cancelled.
func TestRushTakesOver(t *testing.T) {
	const blocks = 64
	s := New(layout.New(blocks*layout.BlockSize, layout.File{Length: 4 * blocks * layout.BlockSize}), 1)
	for i := range 4 {
		s.Prioritise(i, normal)
	}
	now := epoch
	slow, fast := &Supplier{all: true, pace: pace{rate: 100e3}}, &Supplier{all: true, pace: pace{rate: 900e3}}
	for k, r := range []*Supplier{slow, fast} {
		r.Origin, r.Host = k, k
		s.join(r)
		r.Ready, r.pipe.depth = true, 200
	}
	asked, _ := s.Next(slow, blocks, now, nil)
	i := int(asked[0].Piece)
	s.Next(fast, 100, now, nil)
	require.Len(t, fast.queue, 100)
	s.Prioritise(i, urgent)

	plan := s.Rush(i, now, func(cancel []Request, n int) int {
		require.Len(t, cancel, 100, "requests with a lower priority make room")
		for _, c := range cancel {
			require.Equal(t, fast, c.Supplier, "no request of lower priority comes before the piece in the queue of slow")
			require.NotEqualValues(t, i, c.Block.Piece)
		}
		return n
	})
	for _, e := range plan {
		require.Equal(t, fast, e.Supplier)
		require.EqualValues(t, i, e.Block.Piece)
	}
	require.Len(t, fast.queue, len(plan))
	// fast takes over blocks from the end of the piece, as long as it would send each in half the time.
	last := fast.eta(len(fast.queue)-1, now)
	require.Less(t, 2*last, slow.eta(blocks-len(plan), now))
	require.Greater(t, len(plan), blocks/2)
	require.Empty(t, s.Rush(i, now, unlimited), "nothing is left to do")
}

// The free blocks of a rushed piece are divided among the suppliers so that the last block arrives as soon as possible.
func TestRushSharesOut(t *testing.T) {
	const blocks = 60
	s := New(layout.New(blocks*layout.BlockSize, layout.File{Length: blocks * layout.BlockSize}), 1)
	s.Prioritise(0, urgent)
	now := epoch
	shares := make(map[*Supplier]int)
	for k, rate := range []float64{300e3, 200e3, 100e3, 1e3} {
		r := &Supplier{all: true, pace: pace{rate: rate}}
		r.Origin, r.Host = k, k
		s.join(r)
		r.Ready, r.pipe.depth = true, 100
	}
	for _, e := range s.Rush(0, now, unlimited) {
		shares[e.Supplier]++
	}
	for k, want := range []int{30, 20, 10, 0} {
		require.Equal(t, want, shares[s.suppliers[k]])
	}
}
