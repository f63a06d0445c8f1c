package torrent

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
)

// choiceOf returns a choice of all of n files of a piece each, none of which is verified.
func choiceOf(n int) *choice {
	files := make([]layout.File, n)
	for i := range files {
		files[i] = layout.File{Path: "f", Length: 1}
	}
	tor := &Torrent{layout: layout.New(1, files...)}
	c, none := newChoice(tor), bits.New(n)
	c.set(choosePriorities(tor, nil), &none)
	return &c
}

// Completed looks at few files each time that one of very many is lost, and while it is.
func TestCompletedFilesThatAreLostCostLittle(t *testing.T) {
	const n = 100_000
	c := choiceOf(n)
	for i := range n {
		c.piece(i, true)
	}
	y := yielded{files: make(map[int]bool), again: make(map[int]bool)}
	for _, i := range y.fresh(c, false) {
		y.files[i] = true
	}
	require.True(t, y.all(c))
	y.steps = 0
	for i := range n {
		c.piece(i, false)
		for range 3 {
			require.Empty(t, y.fresh(c, false))
		}
		c.piece(i, true)
		require.Empty(t, y.fresh(c, false))
	}
	require.LessOrEqual(t, y.steps, 4*n)

	delete(y.files, n-1) // as if it had never been whole
	y.steps = 0
	for range n {
		require.False(t, y.all(c))
	}
	require.LessOrEqual(t, y.steps, 3*n)
}

// Completed finds every file that is done, whatever is lost, cannot be examined, or is chosen or not meanwhile.
func TestCompletedAgreesWithModel(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 8))
		n := 1 + rng.IntN(8)
		c := choiceOf(n)
		have := bits.New(n)
		y := yielded{files: make(map[int]bool), again: make(map[int]bool)}
		for range 60 {
			switch i := rng.IntN(n); {
			case rng.IntN(8) == 0:
				c.set(choosePriorities(c.t, func(File) Priority { return Priority(-2 + rng.IntN(4)) }), &have)
			default:
				c.toggle(&have, i)
			}
			if rng.IntN(2) == 0 {
				continue
			}
			due := rng.IntN(3) == 0
			var want []int
			for i := range n {
				if c.isDone[i] && !y.files[i] && (due || !y.again[i] || int(c.doneAt[i]) >= y.next) {
					want = append(want, i)
				}
			}
			got := y.fresh(c, due)
			require.Subset(t, got, want)
			for _, i := range got {
				require.True(t, c.isDone[i] && !y.files[i])
				require.Len(t, slices.DeleteFunc(slices.Clone(got), func(k int) bool { return k != i }), 1)
				if rng.IntN(3) == 0 {
					y.again[i] = true
				} else {
					y.files[i] = true
				}
			}
			all := true
			for i := range n {
				all = all && (y.files[i] || !c.priority[i].chosen())
			}
			require.Equal(t, all, y.all(c))
		}
	}
}
