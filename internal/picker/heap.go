package picker

import "github.com/shoal-go/torrent/internal/bits"

// A pieceHeap holds the pieces that are wanted and not started, in the order in which to start them: by priority, highest first,
// then by availability, lowest first, then by a random number, so that two clients in one swarm choose different pieces.
//
// It also counts the availability of all pieces, in the heap or not. Peers that have everything are not counted, so the arrival
// of a seed costs nothing. Pieces that only such peers have are in a separate heap, so that a walk for any other peer does not
// visit them.
type pieceHeap struct {
	seed     uint64
	priority []uint8  // 0 means not wanted
	avail    []uint16 // number of peers that have the piece, without those that have everything
	ranked   []uint16 // for a piece in the heaps, the avail by which it has its place there; see tidy
	pos      []int32  // of a piece in the heaps, its index there
	held     bits.Set // the pieces in the heaps

	unseen []int32 // heap of the pieces with ranked 0
	seen   []int32 // heap of the other pieces

	untidy int // how many pieces, from next on and then from 0, may be in the heaps with another avail than ranked
	next   int

	work int64 // steps, as in Picker.Work

	frontier []int32 // scratch space of first: a heap of the indices in seen or unseen still to be visited
	sampled  int     // the last piece of the latest sample
}

func newPieceHeap(n int, seed uint64) *pieceHeap {
	return &pieceHeap{
		seed:     seed,
		priority: make([]uint8, n),
		avail:    make([]uint16, n),
		ranked:   make([]uint16, n),
		pos:      make([]int32, n),
		held:     bits.New(n),
	}
}

// key returns the sort key of piece i. The piece with the smallest key is started first.
func (h *pieceHeap) key(i int32) uint64 {
	x := (uint64(i) + h.seed) * 0x9e3779b97f4a7c15
	x ^= x >> 29
	x *= 0xbf58476d1ce4e5b9
	return uint64(^h.priority[i])<<48 | uint64(h.ranked[i])<<32 | x>>32
}

func (h *pieceHeap) len() int         { return len(h.unseen) + len(h.seen) }
func (h *pieceHeap) holds(i int) bool { return h.held.Has(i) }

// home returns the heap that piece i belongs to.
func (h *pieceHeap) home(i int) *[]int32 {
	if h.ranked[i] == 0 {
		return &h.unseen
	}
	return &h.seen
}

func (h *pieceHeap) swap(q []int32, a, b int) {
	h.work++
	q[a], q[b] = q[b], q[a]
	h.pos[q[a]], h.pos[q[b]] = int32(a), int32(b)
}

func (h *pieceHeap) up(q []int32, at int) {
	for at > 0 && h.key(q[at]) < h.key(q[(at-1)/2]) {
		h.swap(q, at, (at-1)/2)
		at = (at - 1) / 2
	}
}

func (h *pieceHeap) down(q []int32, at int) {
	for {
		least := at
		for child := 2*at + 1; child <= 2*at+2 && child < len(q); child++ {
			if h.key(q[child]) < h.key(q[least]) {
				least = child
			}
		}
		if least == at {
			return
		}
		h.swap(q, at, least)
		at = least
	}
}

func (h *pieceHeap) fix(q []int32, at int) {
	i := q[at]
	h.up(q, at)
	h.down(q, int(h.pos[i]))
}

func (h *pieceHeap) push(i int) {
	h.ranked[i] = h.avail[i]
	q := h.home(i)
	h.held.Add(i)
	h.pos[i] = int32(len(*q))
	*q = append(*q, int32(i))
	h.up(*q, len(*q)-1)
}

func (h *pieceHeap) remove(i int) {
	q := h.home(i)
	at, last := int(h.pos[i]), len(*q)-1
	h.swap(*q, at, last)
	*q = (*q)[:last]
	h.held.Remove(i)
	if at < last {
		h.fix(*q, at)
	}
}

// prioritise sets the priority of piece i and reports whether it changed.
func (h *pieceHeap) prioritise(i int, priority uint8) bool {
	if h.priority[i] == priority {
		return false
	}
	h.priority[i] = priority
	if h.holds(i) {
		h.fix(*h.home(i), int(h.pos[i]))
	}
	return true
}

// countOne adds delta, 1 or -1, to the availability of piece i.
func (h *pieceHeap) countOne(i, delta int) {
	h.avail[i] += uint16(delta)
	h.rank(i)
}

// rank moves piece i to the place that it has by its availability.
func (h *pieceHeap) rank(i int) {
	switch {
	case !h.holds(i) || h.ranked[i] == h.avail[i]:
	case h.ranked[i] == 0 || h.avail[i] == 0:
		h.remove(i)
		h.push(i)
	default:
		h.ranked[i] = h.avail[i]
		h.fix(h.seen, int(h.pos[i]))
	}
}

// maxRanked is how many pieces are ranked at once. In heaps of millions each takes about a microsecond, because most of what is looked
// at is not in the processor's caches.
const maxRanked = 4096

// maxLooked is how many pieces tidy looks at, one after the other, which takes some nanoseconds each.
const maxLooked = 64 * maxRanked

// count adds delta to the availability of each piece in has. If they are few, each is ranked, which takes O(log n). If they are many,
// both heaps are rebuilt, unless that takes too long: then the pieces are ranked later, by tidy, once for all that count them until then.
func (h *pieceHeap) count(has *bits.Set, delta int) {
	h.work += int64(has.Len()/piecesPerStep + has.Count())
	for i := range has.All() {
		h.avail[i] += uint16(delta)
	}
	switch {
	case has.Count() <= min(h.len()/16, maxRanked):
		for i := range has.All() {
			h.rank(i)
		}
	case h.len() <= 16*maxRanked:
		h.rebuild()
	default:
		h.untidy = has.Len()
	}
}

// rebuild ranks all pieces. It counts as one step for each.
func (h *pieceHeap) rebuild() {
	work := h.work + int64(h.len())
	all := append(append(make([]int32, 0, h.len()), h.unseen...), h.seen...)
	h.unseen, h.seen = h.unseen[:0], h.seen[:0]
	for _, i := range all {
		h.ranked[i] = h.avail[i]
		q := h.home(int(i))
		h.pos[i] = int32(len(*q))
		*q = append(*q, i)
	}
	for _, q := range [][]int32{h.unseen, h.seen} {
		for at := len(q)/2 - 1; at >= 0; at-- {
			h.down(q, at)
		}
	}
	h.work, h.untidy = work, 0
}

// tidy ranks some of the pieces that count left: at most 2*maxRanked, after a look at at most maxLooked.
func (h *pieceHeap) tidy() {
	work, ranked := h.work, 0
	for looked := 0; h.untidy > 0 && ranked < 2*maxRanked && looked < maxLooked; looked++ {
		if i := h.next; h.holds(i) && h.ranked[i] != h.avail[i] {
			h.rank(i)
			ranked++
		}
		h.untidy--
		h.next = (h.next + 1) % len(h.avail)
	}
	h.work = work // those that caused it have been charged, or have left
}

// top returns the first piece in order, or -1. This is the choice for a peer that has everything.
func (h *pieceHeap) top() int {
	switch {
	case len(h.unseen) == 0 && len(h.seen) == 0:
		return -1
	case len(h.seen) == 0 || len(h.unseen) > 0 && h.key(h.unseen[0]) < h.key(h.seen[0]):
		return int(h.unseen[0])
	}
	return int(h.seen[0])
}

// topPriority returns the priority of the first piece in order, or 0 if there is none.
func (h *pieceHeap) topPriority() uint8 {
	if i := h.top(); i >= 0 {
		return h.priority[i]
	}
	return 0
}

// A search by first visits at most maxWalk entries of the heap, each of which costs walkCost steps. Once they have cost as much as
// a sample of maxSample pieces, it takes the sample.
const (
	maxWalk   = 256
	walkCost  = 8
	maxSample = 1024
)

// first returns the first piece in order that is in has, or -1. It walks the heap best-first without changing it. If the walk gets
// long, because has contains few of the first pieces, it takes a sample of has instead, and may not return the first if has contains
// over maxSample pieces of the heap. A pass over all of them would be much work for a peer that loses (BEP 54) whatever it is asked
// for. The pieces in has must have been counted.
func (h *pieceHeap) first(has *bits.Set) int {
	if h.untidy > 0 {
		return h.firstUncounted(has)
	}
	return h.firstIn(h.seen, has)
}

// firstUncounted is first for pieces that were not counted.
func (h *pieceHeap) firstUncounted(has *bits.Set) int {
	a, b := h.firstIn(h.unseen, has), h.firstIn(h.seen, has)
	if a < 0 || b >= 0 && h.key(int32(b)) < h.key(int32(a)) {
		return b
	}
	return a
}

// firstIn returns the first piece in order that is in q, one of the heaps, and in has, or -1. A sample may be of either heap.
func (h *pieceHeap) firstIn(q []int32, has *bits.Set) int {
	if len(q) == 0 {
		return -1
	}
	f := append(h.frontier[:0], 0)
	defer func() { h.frontier = f }()
	for range min(maxWalk, 1+(has.Len()/piecesPerStep+min(has.Count(), maxSample))/walkCost) {
		h.work += walkCost
		if len(f) == 0 {
			return -1
		}
		at := f[0]
		if i := int(q[at]); has.Has(i) {
			return i
		}
		f[0] = f[len(f)-1]
		f = f[:len(f)-1]
		h.sink(q, f)
		for child := 2*at + 1; child <= 2*at+2 && int(child) < len(q); child++ {
			f = append(f, child)
			h.float(q, f)
		}
	}
	return h.sample(has)
}

// sample returns the first in order of at most maxSample pieces that are in the heaps and in has, or -1. The next sample begins
// where this one ends.
func (h *pieceHeap) sample(has *bits.Set) int {
	h.work += int64(has.Len() / piecesPerStep)
	best, least, n := -1, ^uint64(0), 0
	for i := range has.AllAnd(&h.held, h.sampled) {
		if k := h.key(int32(i)); k < least {
			best, least = i, k
		}
		if n++; n == maxSample {
			h.sampled = i
			break
		}
	}
	h.work += int64(n)
	return best
}

// float moves the last entry of the frontier up to its position.
func (h *pieceHeap) float(q, f []int32) {
	for at := len(f) - 1; at > 0; {
		parent := (at - 1) / 2
		if h.key(q[f[at]]) >= h.key(q[f[parent]]) {
			return
		}
		f[at], f[parent] = f[parent], f[at]
		at = parent
	}
}

// sink moves the first entry of the frontier down to its position.
func (h *pieceHeap) sink(q, f []int32) {
	for at := 0; ; {
		least := at
		for child := 2*at + 1; child <= 2*at+2 && child < len(f); child++ {
			if h.key(q[f[child]]) < h.key(q[f[least]]) {
				least = child
			}
		}
		if least == at {
			return
		}
		f[at], f[least] = f[least], f[at]
		at = least
	}
}
