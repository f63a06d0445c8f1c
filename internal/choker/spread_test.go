package choker

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSpread(t *testing.T) {
	const pieces, length = 1000, 256 << 10
	const many = creditAtFirst / length // so many pieces a peer may have for itself
	const sharer, rider = 1, 2
	give := func(s *Spread, peer, from, to int) {
		for i := from; i < to; i++ {
			s.Give(peer, i, pieces, 0)
			s.Give(peer, i, pieces, 0) // block by block
		}
	}
	seen := func(s *Spread, peer, from, to int) {
		for i := from; i < to; i++ {
			s.Seen(peer, i)
		}
	}
	for _, tc := range []struct {
		name string
		does func(s *Spread)
		want bool // the rider hoards
	}{
		{"nothing was given", func(s *Spread) { seen(s, rider, 0, pieces) }, false},
		{"little was given", func(s *Spread) { give(s, rider, 0, many) }, false},
		{"much was given", func(s *Spread) { give(s, rider, 0, many+1) }, true},
		{"its own word that it has them does not count", func(s *Spread) {
			give(s, rider, 0, many+1)
			seen(s, rider, 0, many+1)
		}, true},
		{"it passed some on", func(s *Spread) {
			give(s, rider, 0, many+creditFactor)
			seen(s, sharer, 7, 8)
		}, false},
		{"but not enough", func(s *Spread) {
			give(s, rider, 0, many+creditFactor+1)
			seen(s, sharer, 7, 8)
		}, true},
		{"a piece is passed on once", func(s *Spread) {
			give(s, rider, 0, 100)
			for other := range 100 {
				seen(s, 10+other, 7, 8)
			}
		}, true},
		{"others were given the same", func(s *Spread) {
			give(s, rider, 0, 100)
			give(s, sharer, 0, 100)
			seen(s, sharer, 0, 100)
			seen(s, 3, 0, 100)
		}, true},
		{"it was given what another had been given", func(s *Spread) {
			give(s, sharer, 0, 100)
			give(s, rider, 0, 100)
		}, false},
		{"it was given what others have", func(s *Spread) {
			for i := range 100 {
				s.Give(rider, i, pieces, 1)
			}
		}, false},
		{"it has left", func(s *Spread) {
			give(s, rider, 0, 100)
			s.Forget(rider)
			seen(s, sharer, 0, 100)
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var s Spread
			tc.does(&s)
			require.Equal(t, tc.want, s.Hoards(rider, length))
		})
	}
}

// A seed has to give again the pieces that only a hoarder has.
func TestSpreadReclaims(t *testing.T) {
	var s Spread
	require.False(t, s.reclaim(1, 1<<20))
	for i := range 10 {
		s.Give(1, i, 100, 0)
	}
	s.Give(2, 10, 100, 0)
	require.True(t, s.reclaim(1, 1<<20))
	require.False(t, s.reclaim(1, 1<<20), "but once")
	s.Seen(3, 1)
	require.True(t, s.Hoards(1, 1<<20), "it did not pass that on")
	require.False(t, s.reclaim(10, 1<<20), "a peer that has little does not hoard")
	require.False(t, s.reclaim(11, 1<<20))
}

// A long piece takes long to pass on.
func TestSpreadOfLongPieces(t *testing.T) {
	var s Spread
	for i := range hoardPieces {
		s.Give(1, i, 100, 0)
	}
	require.False(t, s.Hoards(1, 512<<20))
	s.Give(1, hoardPieces, 100, 0)
	require.True(t, s.Hoards(1, 512<<20))
}
