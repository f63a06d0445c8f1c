package picker

import (
	"cmp"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/layout"
)

// MaxRun is the greatest length of a run in blocks, 16 MiB.
const MaxRun = 1024

// minRun is the length in blocks up to which a run continues even if the next piece is less rare than its first one.
const minRun = 256

// RunLength returns the length of the next run of s in blocks: a few times what it sends in a second and the time that an answer
// takes.
func (s *Supplier) RunLength() int {
	sends := s.pace.rate * (s.pipe.rtt + pipelineTime).Seconds() / layout.BlockSize
	return min(4*max(int(sends), startDepth), MaxRun)
}

// promptTime is the time in which servers answer that do not wait before.
const promptTime = time.Second

// Gap returns how many bytes s may send that are not wanted, rather than answer another request: what it sends in a quarter of the
// time that this takes beyond promptTime. It is 0 for a server that answers promptly.
func (s *Supplier) Gap() int { return int(max(0, s.pace.rate*(s.pipe.rtt-promptTime).Seconds()/4)) }

// NextRun is Next for a supplier with Runs set. It appends up to n consecutive blocks to out, or blocks taken over from others,
// which may not be consecutive.
//
// A started piece is completed first. A new run begins at the rarest of the pieces with the highest priority; of several, at the
// one with the most free blocks after it. If there are no peers, it begins at the first of them, so that content arrives in
// order. It continues as long as no piece has a higher priority than the next one.
func (pk *Picker) NextRun(s *Supplier, n int, now time.Time, out []Block) (blocks []Block, cancel []Request) {
	s.expect(now)
	if n <= 0 {
		return out, nil
	}
	pk.ranking = ranking{}
	t := turn{pk: pk, s: s, now: now, out: out, end: len(out) + n}
	if p := pk.due(s); p != nil {
		p.sole = nil // to give way does not count as a lapse
		t.run(t.reassign(p))
		return t.out, t.cancel
	}
	first, least := pk.runStart(s, n), uint8(0)
	if first >= 0 {
		least = pk.heap.priority[first]
	}
	p := pk.openWith(least, s, now)
	switch {
	case p != nil && p.sole != nil && p.sole != s:
		p = t.reassign(p)
	case p == nil && first >= 0:
		p = pk.start(first)
	case p == nil:
		mark := len(s.queue)
		t.steal()
		// steal takes the last block first, but a run is sent in order.
		slices.SortFunc(t.out[len(out):], compareBlocks)
		slices.SortStableFunc(s.queue[min(mark, len(s.queue)):], func(a, b outstanding) int { return compareBlocks(a.Block, b.Block) })
		return t.out, t.cancel
	}
	t.run(p)
	return t.out, t.cancel
}

// openWith returns the first open piece with at least the given priority that s can be asked for, or nil.
func (pk *Picker) openWith(priority uint8, s *Supplier, now time.Time) *startedPiece {
	if now.Before(s.walksFrom) {
		return nil
	}
	before := pk.work
	for _, p := range pk.open {
		if pk.work++; p.priority < priority {
			break
		}
		if pk.may(s, p, now) {
			return p
		}
	}
	s.restFromWalk(pk.work-before, now)
	return nil
}

func compareBlocks(a, b Block) int {
	return cmp.Or(cmp.Compare(a.Piece, b.Piece), cmp.Compare(a.Index, b.Index))
}

// run takes the first free blocks of p, and those of the pieces after it, as far as they are no more than Gap apart.
func (t *turn) run(p *startedPiece) {
	pk, s, begun, rarity := t.pk, t.s, len(t.out), t.pk.heap.avail[p.piece]
	gap, most, passed := 0, s.Gap()/layout.BlockSize, 0
	for k := p.cursor; !t.full() && passed < MaxRun; k++ {
		if k == p.blocks.len() {
			p, k = t.following(p, len(t.out)-begun >= minRun, rarity), 0
			if p == nil {
				return
			}
		}
		if len(t.out) > begun {
			passed++
		}
		if !p.isFree(k) {
			if gap++; gap > most && passed > 0 && !p.parole {
				return
			}
			continue
		}
		if gap = 0; p.parole {
			pk.assign(p, s)
		}
		id := Block{p.piece, int32(k)}
		pk.claim(pk.block(p, id.Index), s, id, t.now)
		if p.free--; p.free == 0 {
			pk.close(p)
		}
		t.out = append(t.out, id)
	}
}

// following returns the piece after another one, and starts it if necessary, if a run may continue with it, else nil. If long is
// set, the run does not continue with a piece that is less rare than rarity, the availability of its first one. A piece on parole is a
// run of its own, unless answers take so long that there would be too few of them.
func (t *turn) following(last *startedPiece, long bool, rarity uint16) *startedPiece {
	pk, s, i := t.pk, t.s, last.piece+1
	if int(i) >= pk.layout.NumPieces() || !pk.need.Has(int(i)) || !s.may(i) {
		return nil
	}
	if (last.parole || pk.spoiled[i] != nil) && s.Gap() == 0 {
		return nil
	}
	priority := pk.heap.priority[i]
	if pk.heap.topPriority() > priority || len(pk.open) > 0 && pk.open[0].priority > priority {
		return nil
	}
	if long && pk.heap.avail[i] > rarity {
		return nil
	}
	p := pk.started[i]
	if p == nil {
		p = pk.start(int(i))
	}
	if !p.parole {
		return p
	}
	deposes := pk.deposes(s, p)
	switch {
	case p.free == 0 && !deposes:
		return p // for what comes after it
	case !deposes && !pk.may(s, p, t.now):
		pk.retire(p)
		return nil
	case p.sole != nil && p.sole != s:
		return t.reassign(p)
	}
	return p
}

// maxLooks is how many pieces runStart looks at beside peers. To look at a million for each run would take milliseconds.
const maxLooks = 1 << 16

// runStart returns the piece in the heap at which a run of n blocks of s should begin, or -1. Beside peers it looks at maxLooks pieces,
// the next time at those after them. Unless one of them is as good, it returns the first in the order of the heap.
func (pk *Picker) runStart(s *Supplier, n int) (best int) {
	top := pk.heap.top()
	if top < 0 {
		return -1
	}
	inOrder := !slices.ContainsFunc(pk.suppliers, func(o *Supplier) bool { return !o.Runs })
	held, has, start := &pk.heap.held, &s.has, pk.runsFrom
	if s.all {
		has = held
	}
	if inOrder {
		start = 0
	}
	class := func(i int) uint64 { return pk.heap.key(int32(i)) >> 32 } // priority, then availability
	best, most, looks := -1, 0, 0
	from, end := 0, 0 // the pieces that were counted last: a run that begins later in these is shorter
	for i := range held.AllAnd(has, start) {
		pk.work++
		if looks++; looks > maxLooks && !inOrder {
			pk.runsFrom = i
			if !s.all {
				top = pk.heap.firstUncounted(&s.has)
			}
			if top >= 0 && (best < 0 || class(top) < class(best)) {
				best = top
			}
			break
		}
		if !s.may(int32(i)) {
			continue
		}
		if best >= 0 && (class(i) > class(best) ||
			class(i) == class(best) && (inOrder || most >= n || from <= i && i < end || pk.spoiled[int32(i)] != nil)) {
			continue
		}
		blocks, next := 0, i
		for ; blocks < n && next < pk.layout.NumPieces() && pk.heap.holds(next) && s.may(int32(next)); next++ {
			blocks += pk.layout.NumBlocks(next)
			pk.work++
		}
		from, end = i, next
		if best < 0 || class(i) < class(best) || blocks > most {
			best, most = i, blocks
		}
		if class(best) == class(top) && (inOrder || most >= n) {
			break
		}
	}
	return best
}

// Offer records a request to s for a block that s is about to send in any case. If the block is not wanted, it records none and
// reports false. Of two others that the block was requested from, the request to one is to be cancelled: two slow suppliers must
// not keep from s what s may send only once. Nor must a stranger keep from it a piece on parole.
func (pk *Picker) Offer(s *Supplier, id Block, now time.Time) (cancel []Request, wanted bool) {
	i := int(id.Piece)
	if !pk.need.Has(i) || !s.may(id.Piece) {
		return nil, false
	}
	p := pk.started[id.Piece]
	if p == nil {
		if !pk.heap.holds(i) {
			return nil, false
		}
		p = pk.start(i)
	}
	if pk.deposes(s, p) {
		t := turn{pk: pk, s: s}
		p = t.reassign(p)
		cancel = t.cancel
	}
	b := p.blocks.at(int(id.Index))
	if b.here() || b.owner[0] == s || b.owner[1] == s || p.parole && p.sole != nil && p.sole != s {
		return cancel, false
	}
	if last := len(b.owner) - 1; b.copies() > last {
		cancel = append(cancel, Request{b.owner[last], id})
		pk.withdraw(b.owner[last], id)
	}
	pk.request(p, Request{s, id}, now)
	return cancel, true
}
