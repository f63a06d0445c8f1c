package picker

import (
	"cmp"
	"slices"
)

// compare compares the whole state of the picker with that of the model.
func (h *history) compare() {
	for k, r := range h.m.suppliers {
		real := r.real
		if h.s.suppliers[k] != real {
			h.fail("supplier %d differs", k)
		}
		want, fresh := 0, 0
		for i, p := range h.m.pieces {
			if r.has[i] != real.Has(i) {
				h.fail("supplier %v: piece %d held %v", real.Origin, i, real.Has(i))
			}
			want += one(r.has[i] && p.wanted())
			fresh += one(r.has[i] && p.waiting())
		}
		if real.all != r.all || real.near != r.near {
			h.fail("supplier %v has all: %v", real.Origin, real.all)
		}
		if !r.all && (real.want != want || real.fresh != fresh) {
			h.fail("supplier %v: want %d, fresh %d, should be %d and %d", real.Origin, real.want, real.fresh, want, fresh)
		}
		if h.s.Interesting(real) != (want > 0) {
			h.fail("supplier %v: interesting %v, though it has %d wanted pieces", real.Origin, h.s.Interesting(real), want)
		}
		if !slices.EqualFunc(r.queue, real.queue, func(id Block, q outstanding) bool { return q.Block == id }) {
			h.fail("supplier %v: queue %v, want %v", real.Origin, real.queue, r.queue)
		}
		if len(r.late) != real.forgiven.len() || r.heard != real.heard || r.snubbed != real.snubbed {
			h.fail("supplier %v: %d late, heard %v, snubbed %v", real.Origin, real.forgiven.len(), real.heard, real.snubbed)
		}
	}
	if len(h.s.suppliers) != len(h.m.suppliers) {
		h.fail("%d suppliers, not %d", len(h.s.suppliers), len(h.m.suppliers))
	}
	started, waiting := 0, 0
	var first *modelPiece
	for i, p := range h.m.pieces {
		if got, want := int(h.s.heap.avail[i]), h.m.avail(p); got != want {
			h.fail("piece %d: availability %d, want %d", i, got, want)
		}
		if h.s.have.Has(i) != p.had || h.s.need.Has(i) != p.wanted() || h.s.heap.holds(i) != p.waiting() {
			h.fail("piece %d: had %v, needed %v, in the heap %v; %+v", i, h.s.have.Has(i), h.s.need.Has(i), h.s.heap.holds(i), p)
		}
		if p.waiting() {
			waiting++
			if first == nil || h.m.before(p, first) {
				first = p
			}
		}
		real := h.s.started[int32(i)]
		if (real != nil) != (p.started > 0) {
			h.fail("piece %d: started %v", i, real != nil)
		}
		if real == nil {
			continue
		}
		started++
		h.compareStarted(p, real)
	}
	if len(h.s.started) != started || h.s.heap.len() != waiting {
		h.fail("%d started, %d in the heap; want %d, %d", len(h.s.started), h.s.heap.len(), started, waiting)
	}
	if top := h.s.heap.top(); (first == nil) != (top < 0) || first != nil && top != first.index {
		h.fail("top of the heap is %d, want %+v", top, first)
	}
	h.compareFirst()
	for _, p := range h.s.open {
		if !p.open || h.s.started[p.piece] != p {
			h.fail("piece %d is open, and should not be", p.piece)
		}
	}
	if !slices.IsSortedFunc(h.s.open, func(a, b *startedPiece) int {
		return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(a.attempt, b.attempt))
	}) {
		h.fail("open pieces are out of order")
	}
}

// compareFirst compares which piece each supplier would start.
func (h *history) compareFirst() {
	for _, r := range h.m.suppliers {
		var first *modelPiece
		for i, p := range h.m.pieces {
			if r.has[i] && p.waiting() && (first == nil || h.m.before(p, first)) {
				first = p
			}
		}
		if r.real.all {
			continue // it starts the top of the heap
		}
		find := h.s.heap.first
		if r.near {
			find = h.s.heap.firstUncounted
		}
		if got := find(&r.real.has); (first == nil) != (got < 0) || first != nil && got != first.index {
			h.fail("supplier %v would start %d, want %+v", r.real.Origin, got, first)
		}
	}
}

// compareStarted compares the state of a started piece.
func (h *history) compareStarted(p *modelPiece, real *startedPiece) {
	free, left := 0, 0
	for k := range p.blocks {
		b, rb := &p.blocks[k], real.blocks.at(k)
		id := Block{int32(p.index), int32(k)}
		for _, o := range b.owners {
			if rb.owner[0] != o.real && rb.owner[1] != o.real {
				h.fail("block %v: %v is no owner", id, o.real.Origin)
			}
		}
		if rb.copies() != len(b.owners) {
			h.fail("block %v: %d copies, want %d", id, rb.copies(), len(b.owners))
		}
		switch {
		case b.sender == nil && !rb.here():
		case b.sender == storedEarlier && rb.sender == fromStorage:
		case b.sender != nil && b.sender != storedEarlier && rb.sender >= 0 && h.s.senders.all[rb.sender].origin == b.sender.real.Origin:
		default:
			h.fail("block %v: sender %d", id, rb.sender)
		}
		if rb.kept != b.kept {
			h.fail("block %v: kept %v", id, rb.kept)
		}
		if rb.here() && rb.copies() > 0 {
			h.fail("block %v has arrived and is requested", id)
		}
		if b.free() && k < real.cursor {
			h.fail("block %v is free and before the cursor %d", id, real.cursor)
		}
		free += one(b.free())
		left += one(b.sender == nil)
	}
	if real.free != free || real.left != left || real.priority != p.priority || real.parole != p.parole {
		h.fail("piece %d: %d free, %d left, priority %d, parole %v; want %d, %d, %d, %v", p.index,
			real.free, real.left, real.priority, real.parole, free, left, p.priority, p.parole)
	}
	same := (real.sole == nil) == (p.sole == nil)
	if same && p.sole != nil && p.sole.was != nil {
		same = real.sole.left && real.sole.Origin == p.sole.was.real.Origin
	} else if same && p.sole != nil {
		same = real.sole == p.sole.real
	}
	if !same {
		h.fail("piece %d: wrong sole supplier", p.index)
	}
	for _, r := range h.m.suppliers {
		open := 0
		for _, q := range h.s.open {
			open += one(r.has[q.piece])
		}
		if !r.real.all && r.real.open != open {
			h.fail("supplier %v: %d open pieces, want %d", r.real.Origin, r.real.open, open)
		}
	}
	if real.open != (free > 0 && p.priority > 0) {
		h.fail("piece %d: open %v with %d free blocks and priority %d", p.index, real.open, free, p.priority)
	}
}
