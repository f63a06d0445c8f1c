package torrent

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/layout"
)

// A piece that is waited for and already under way, but from somebody slow, is taken over for the
// greater part by whoever is faster, past all that is less wanted.
func TestHurryTakesOver(t *testing.T) {
	const blocks = 64
	s := newScheduler(layout.New(blocks*blockSize, layout.File{Length: 4 * blocks * blockSize}), 1)
	for i := range 4 {
		s.Prioritise(i, pieceNormal)
	}
	now := epoch
	slow, fast := &remote{all: true, pace: pace{rate: 100e3}}, &remote{all: true, pace: pace{rate: 900e3}}
	s.join(slow, addrPort("10.0.0.1:1"))
	s.join(fast, addrPort("10.0.0.2:1"))
	asked, _ := s.next(slow, blocks, now, nil)
	i := int(asked[0].piece)
	s.next(fast, 100, now, nil)
	require.Len(t, fast.queue, 100)
	s.Prioritise(i, pieceNow)

	plan := s.hurry(i, func(*remote) int { return 200 }, now)
	for _, e := range plan {
		require.Equal(t, fast, e.remote)
		require.EqualValues(t, i, e.block.piece)
	}
	require.Len(t, s.yield(fast, pieceNow, true), 100, "what is less wanted makes room")
	require.Empty(t, s.yield(slow, pieceNow, false), "nothing less wanted stands before the piece")
	for _, e := range plan {
		s.run(e, now)
	}
	// It is taken over from its end on, as far as the fast one has each block in half the time.
	last := fast.eta(len(fast.queue)-1, now)
	require.Less(t, 2*last, slow.eta(blocks-len(plan), now))
	require.Greater(t, len(plan), blocks/2)
	require.Empty(t, s.hurry(i, func(*remote) int { return 200 }, now), "and that is all there is to do")
}

// Free blocks of a piece that is waited for are shared out so that the last of them comes soonest.
func TestHurrySharesOut(t *testing.T) {
	const blocks = 60
	s := newScheduler(layout.New(blocks*blockSize, layout.File{Length: blocks * blockSize}), 1)
	s.Prioritise(0, pieceNow)
	now := epoch
	shares := make(map[*remote]int)
	for k, rate := range []float64{300e3, 200e3, 100e3, 1e3} {
		s.join(&remote{all: true, pace: pace{rate: rate}}, netip.AddrPortFrom(netip.IPv6Loopback(), uint16(k)))
	}
	for _, e := range s.hurry(0, func(*remote) int { return 100 }, now) {
		s.run(e, now)
		shares[e.remote]++
	}
	for k, want := range []int{30, 20, 10, 0} {
		require.Equal(t, want, shares[s.remotes[k]])
	}
}
