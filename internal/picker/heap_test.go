package picker

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
)

func TestOrderDependsOnSeed(t *testing.T) {
	order := func(seed uint64) (order []int) {
		h := newPieceHeap(50, seed)
		for i := range 50 {
			h.prioritise(i, 1)
			h.push(i)
		}
		for h.len() > 0 {
			i := h.top()
			h.remove(i)
			order = append(order, i)
		}
		return order
	}
	require.Equal(t, order(1), order(1))
	require.NotEqual(t, order(1), order(2))
	require.False(t, slices.IsSorted(order(1)), "not in order of the index")
}

// For a peer with few pieces, none of them near the top of the heap, first finds the right one with a pass over the bitfield.
func TestSparsePeer(t *testing.T) {
	const n = 20_000
	h := newPieceHeap(n, 7)
	rng := rand.New(rand.NewPCG(7, 7))
	all := bits.Full(n)
	for i := range n {
		h.prioritise(i, uint8(1+rng.IntN(2)))
		h.push(i)
	}
	h.count(&all, 1)
	for range 200 {
		sparse := bits.New(n)
		for range 1 + rng.IntN(20) {
			sparse.Add(rng.IntN(n))
		}
		best := -1
		for i := range sparse.All() {
			if best < 0 || h.key(int32(i)) < h.key(int32(best)) {
				best = i
			}
		}
		require.Equal(t, best, h.first(&sparse))
	}
	none := bits.New(n)
	require.Equal(t, -1, h.first(&none))
}

// The pieces of a peer that has few are counted one by one, with the same result.
func TestCountOfFewPieces(t *testing.T) {
	const n = 1000
	h := newPieceHeap(n, 7)
	for i := range n {
		h.prioritise(i, 1)
		h.push(i)
	}
	few := bits.New(n)
	for _, i := range []int{3, 500, 999} {
		few.Add(i)
	}
	h.count(&few, 1)
	require.Len(t, h.seen, few.Count())
	require.True(t, few.Has(h.first(&few)))
	h.count(&few, -1)
	require.Empty(t, h.seen)
	require.Len(t, h.unseen, n)
}

// A peer loses each piece that it is asked for (BEP 54). In the end it has none of the many that would be asked for first, and still
// little work is needed to find another one, which is among the first of what it has.
func TestPeerThatLosesPieces(t *testing.T) {
	for _, n := range []int{16_000, 1_000_000} {
		h := newPieceHeap(n, 7)
		all := bits.Full(n)
		for i := range n {
			h.prioritise(i, 1)
			h.push(i)
		}
		h.count(&all, 1)
		order := make([]int32, n)
		for i := range order {
			order[i] = int32(i)
		}
		slices.SortFunc(order, func(a, b int32) int { return cmp.Compare(h.key(a), h.key(b)) })
		for _, i := range order[:n/2] {
			all.Remove(int(i))
		}
		rank := make([]int, n)
		for r, i := range order[n/2:] {
			rank[i] = r
		}
		var most int64
		var ranks []int
		for range 200 {
			before := h.work
			i := h.first(&all)
			most = max(most, h.work-before)
			require.True(t, all.Remove(i))
			ranks = append(ranks, rank[i])
		}
		slices.Sort(ranks)
		t.Logf("%d pieces: %d steps at most, median rank %d", n, most, ranks[100])
		require.LessOrEqual(t, most, int64(maxWalk*walkCost+n/piecesPerStep+maxSample))
		require.LessOrEqual(t, ranks[100], 100+n/500)
	}
}
