package picker

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Abandon makes a started piece start again, without blame for a supplier.
func TestAbandon(t *testing.T) {
	sc := newScene(t, 1)
	require.Empty(t, sc.s.Abandon(0), "the piece is not started")
	a := sc.join("a")
	require.Equal(t, "0.0 0.1 0.2", sc.asks("a", 3))
	sc.sends("a", 0, 0, Accepted)
	require.Equal(t, []Request{{a, Block{0, 1}}, {a, Block{0, 2}}}, sc.s.Abandon(0))
	require.True(t, sc.s.heap.holds(0))
	require.Empty(t, a.queue)
	sc.fetch("aaaa")
	require.Empty(t, sc.s.Abandon(0), "the piece is complete and being hashed")
	require.False(t, sc.s.heap.holds(0))
	require.Empty(t, sc.s.Discard(0))
	require.True(t, sc.s.heap.holds(0))
	require.Empty(t, sc.s.Discard(0), "the piece is not started")
}

func TestPieceInDoubt(t *testing.T) {
	sc := newScene(t, 2)
	sc.join("s")
	sc.s.Passed(0, nil)
	sc.s.Passed(1, nil)
	require.False(t, sc.s.Interesting(sc.peers["s"]))
	require.True(t, sc.s.Doubt(0))
	require.True(t, sc.s.Doubted(0))
	require.False(t, sc.s.Doubt(0), "the piece is in doubt already")
	sc.s.Prioritise(0, high)
	require.Empty(t, sc.asks("s", 1), "a piece in doubt is not requested")
	sc.s.Lost(0)
	require.False(t, sc.s.Doubted(0))
	require.Equal(t, "0.0", sc.asks("s", 1))
}
