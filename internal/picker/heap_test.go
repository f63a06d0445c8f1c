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

// check checks that both heaps are in order.
func (h *pieceHeap) check(t *testing.T) {
	t.Helper()
	for _, q := range [][]int32{h.unseen, h.seen} {
		for at, i := range q {
			if h.pos[i] != int32(at) || !h.holds(int(i)) || h.home(int(i)) == &h.unseen != (&q[0] == &h.unseen[0]) {
				t.Fatalf("piece %d is misplaced", i)
			}
			if at > 0 && h.key(i) < h.key(q[(at-1)/2]) {
				t.Fatalf("piece %d is out of order", i)
			}
			if h.untidy == 0 && h.ranked[i] != h.avail[i] {
				t.Fatalf("piece %d has its place by another availability", i)
			}
		}
	}
	require.Equal(t, h.held.Count(), h.len())
}

// stale returns how many pieces have their place by another availability.
func (h *pieceHeap) stale() (n int) {
	for i := range h.held.All() {
		if h.ranked[i] != h.avail[i] {
			n++
		}
	}
	return n
}

// A long bitfield of a torrent of very many pieces is counted in a step for each of them, none of which looks at the heap, and so is one
// that leaves. The pieces come to their places little by little.
func TestLongBitfieldsAreRankedLater(t *testing.T) {
	const n = 300_000
	for _, every := range []int{2, 15, 17, 60} {
		h := newPieceHeap(n, 7)
		for i := range n {
			h.prioritise(i, 1)
			h.push(i)
		}
		part := bits.New(n)
		for i := 0; i < n; i += every {
			part.Add(i)
		}
		before := h.work
		h.count(&part, 1)
		require.LessOrEqual(t, h.work-before, int64(part.Count()+n/piecesPerStep))
		require.Equal(t, part.Count(), h.stale())
		require.True(t, part.Has(h.first(&part)))
		rounds := 0
		for ; h.untidy > 0; rounds++ {
			left := h.stale()
			h.tidy()
			require.LessOrEqual(t, left-h.stale(), 2*maxRanked)
			require.True(t, part.Has(h.first(&part)))
		}
		require.LessOrEqual(t, rounds, 2+part.Count()/(2*maxRanked)+n/maxLooked)
		require.Len(t, h.seen, part.Count())
		h.check(t)
		before = h.work
		h.count(&part, -1)
		require.LessOrEqual(t, h.work-before, int64(part.Count()+n/piecesPerStep))
	}
}

// The heaps stay in order whatever happens while some pieces wait to be ranked.
func TestChangesWhilePiecesWaitToBeRanked(t *testing.T) {
	const n = 17 * maxRanked
	h := newPieceHeap(n, 7)
	rng := rand.New(rand.NewPCG(7, 7))
	for i := range n {
		h.prioritise(i, 1)
		h.push(i)
	}
	var counted []bits.Set
	for range 60 {
		if part := bits.New(n); len(counted) < 5 {
			for i := range n {
				if rng.IntN(len(counted)+2) == 0 {
					part.Add(i)
				}
			}
			h.count(&part, 1)
			counted = append(counted, part)
		} else {
			h.count(&counted[0], -1)
			counted = counted[1:]
		}
		for range 200 {
			switch i := rng.IntN(n); {
			case !h.holds(i):
				h.push(i)
			case rng.IntN(3) == 0:
				h.remove(i)
			case rng.IntN(2) == 0:
				h.prioritise(i, uint8(1+rng.IntN(3)))
			case h.avail[i] < 10:
				h.countOne(i, 1)
			}
		}
		for range rng.IntN(12) {
			h.tidy()
		}
		h.check(t)
	}
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
