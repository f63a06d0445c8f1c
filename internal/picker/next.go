package picker

import (
	"slices"
	"time"
)

// Next appends to out up to n blocks to request from s now, and records the requests. cancel are requests to other suppliers that
// are pointless now; the caller cancels them.
//
// Of the pieces with the highest priority, those that s suggests come first: a seed suggests pieces that no other peer has. Then
// come started pieces, oldest first, so that they are completed, and then new ones in the order of the heap. If no block is free,
// s takes over requests to others.
func (pk *Picker) Next(s *Supplier, n int, now time.Time, out []Block) (blocks []Block, cancel []Request) {
	s.expect(now)
	if s.snubbed {
		n = min(n, 1-len(s.queue))
	}
	if n <= 0 {
		return out, nil
	}
	pk.ranking = ranking{}
	t := turn{pk: pk, s: s, now: now, out: out, end: len(out) + n}
	t.takeDue()
	t.takeOpen()
	t.takeNew()
	t.steal()
	return t.out, t.cancel
}

// A turn is one call of Next.
type turn struct {
	pk     *Picker
	s      *Supplier
	now    time.Time
	out    []Block
	end    int // greatest length of out
	cancel []Request
}

func (t *turn) full() bool { return len(t.out) >= t.end }

// takeDue takes the pieces on parole that are due to s.
func (t *turn) takeDue() {
	for !t.full() {
		p := t.pk.due(t.s)
		if p == nil {
			return
		}
		p.sole = nil // to give way does not count as a lapse
		t.take(t.reassign(p))
	}
}

// takeOpen takes free blocks of started pieces, and starts pieces with a higher priority than these.
func (t *turn) takeOpen() {
	pk, s := t.pk, t.s
	if s.Choking && !pk.allowsOpen(s) || t.now.Before(s.walksFrom) {
		return
	}
	before, had := pk.work, len(t.out)
	defer func() {
		if len(t.out) == had {
			s.restFromWalk(pk.work-before, t.now)
		}
	}()
	top := unknown    // the piece that s would start next
	seen := 0         // how many of pk.open[:k] s has; thousands may be open that only one stranger has
	sought := unknown // the priority of which s suggests no piece that it can be asked for
	for k := 0; k < len(pk.open) && !t.full() && (s.all || seen < s.open); {
		p := pk.open[k]
		pk.work++
		if top == unknown && pk.heap.topPriority() > p.priority {
			top = pk.first(s) // once for all of pk.open, because it is costly
		}
		if top >= 0 && pk.heap.priority[top] > p.priority {
			t.take(pk.start(top))
			top, k, seen = unknown, 0, 0
			continue
		}
		var q *startedPiece
		if int(p.priority) != sought {
			if q = pk.suggested(s, p.priority, t.now); q == nil {
				sought = int(p.priority)
			} else {
				p, top, k, seen = q, unknown, 0, 0
			}
		}
		if q != nil || pk.may(s, p, t.now) {
			if p.sole != nil && p.sole != s {
				p = t.reassign(p)
				top, k, seen = unknown, 0, 0
			}
			t.take(p)
			if !p.open {
				continue // p is no longer in pk.open
			}
		}
		if s.Has(int(pk.open[k].piece)) {
			seen++
		}
		k++
	}
}

// allowsOpen reports whether any open piece may be requested from s while it chokes us.
func (pk *Picker) allowsOpen(s *Supplier) bool {
	for i := range s.allowed {
		if pk.isOpen(int(i)) > 0 && s.Has(int(i)) {
			return true
		}
	}
	return false
}

// takeNew starts pieces and takes their blocks.
func (t *turn) takeNew() {
	for !t.full() {
		top := t.pk.first(t.s)
		if top < 0 {
			return
		}
		t.take(t.pk.start(top))
	}
}

// steal takes over requests to other suppliers.
func (t *turn) steal() {
	pk, s := t.pk, t.s
	for !t.full() {
		victim, at := pk.victim(s, t.now)
		if victim == nil {
			return
		}
		id := victim.queue[at].Block
		p := pk.started[id.Piece]
		if p.parole {
			t.take(t.reassign(p))
			continue
		}
		b := pk.block(p, id.Index)
		if !victim.stuck(id.Piece) {
			gain := victim.eta(at, t.now) - s.eta(len(s.queue), t.now)
			if !s.Runs && !pk.outlook(t.now).large(s, victim, gain) {
				pk.loot++
			}
			victim.rob(t.now)
		}
		full := b.copies() == len(b.owner)
		if full {
			pk.withdraw(victim, id) // s replaces victim
		}
		pk.claim(b, s, id, t.now)
		ends := victim.Runs && !full && !pk.goesOn(victim, s)
		if ends {
			pk.withdraw(victim, id) // victim sends its run in order, and would send this block too
		}
		if ends || full {
			t.cancel = append(t.cancel, Request{victim, id})
		}
		pk.steals++
		t.out = append(t.out, id)
	}
}

// take takes the free blocks of p in order, as far as there is room in out.
func (t *turn) take(p *startedPiece) {
	if p.parole {
		t.pk.assign(p, t.s)
	}
	for ; p.free > 0 && !t.full(); p.cursor++ {
		t.pk.work++
		if p.isFree(p.cursor) {
			id := Block{p.piece, int32(p.cursor)}
			t.pk.claim(t.pk.block(p, id.Index), t.s, id, t.now)
			p.free--
			t.out = append(t.out, id)
		}
	}
	if p.free == 0 {
		t.pk.close(p)
	}
}

// reassign takes a piece on parole from its sole supplier and starts it again for s. If that one chokes and has sent so much more than s,
// its blocks are kept: it may choke again and again before it has sent all of a piece.
func (t *turn) reassign(p *startedPiece) *startedPiece {
	i, o := p.piece, p.sole
	if o != nil && !o.snubbed && o.stuck(i) && t.pk.trusts(o, t.s) && p.keep() > 0 {
		u := t.pk.spoiled[i]
		u.accused = slices.DeleteFunc(u.accused, func(n int32) bool { return n == o.sender })
	}
	t.pk.endTurn(p)
	t.cancel = append(t.cancel, t.pk.withdrawAll(p)...)
	t.pk.restart(p)
	if p = t.pk.started[i]; p == nil {
		p = t.pk.start(int(i))
	}
	return p
}

// unknown means that first or suggested has not been called yet.
const unknown = -2

// first returns the first piece in heap order that s can start, or -1. It may make a pass over the bitfield of s.
func (pk *Picker) first(s *Supplier) int {
	top := pk.heap.top()
	if top < 0 || !s.all && s.fresh == 0 {
		return -1
	}
	switch {
	case s.Choking:
		top = -1
		for i := range s.allowed {
			if pk.heap.holds(int(i)) && s.Has(int(i)) && (top < 0 || pk.heap.key(i) < pk.heap.key(int32(top))) {
				top = int(i)
			}
		}
	case s.near:
		top = pk.heap.firstUncounted(&s.has)
	case !s.all:
		top = pk.heap.first(&s.has)
	}
	if top < 0 {
		return -1
	}
	for _, i := range s.suggested {
		if pk.heap.holds(int(i)) && s.Has(int(i)) && !s.Choking && pk.heap.priority[i] == pk.heap.priority[top] {
			return int(i)
		}
	}
	return top
}

// suggested returns a piece of the given priority that s suggests and can be asked for, or nil. It starts the piece if necessary.
func (pk *Picker) suggested(s *Supplier, priority uint8, now time.Time) *startedPiece {
	pk.work += int64(len(s.suggested))
	for _, i := range s.suggested {
		if s.Choking || pk.heap.priority[i] != priority || !s.Has(int(i)) {
			continue
		}
		if pk.heap.holds(int(i)) {
			return pk.start(int(i))
		}
		if p := pk.started[i]; p != nil && p.open && pk.may(s, p, now) {
			return p
		}
	}
	return nil
}

// may reports whether s can be asked for blocks of p.
func (pk *Picker) may(s *Supplier, p *startedPiece, now time.Time) bool {
	if !s.may(p.piece) || pk.barred(s, p) || p.sole != s && pk.outranked(s, p) {
		return false
	}
	switch o := p.sole; {
	case o == nil, o == s, !o.Has(int(p.piece)):
		return true
	case p.waits && o.stuck(p.piece):
		return pk.outdoes(s, o, p, len(o.queue)-1, now)
	case !o.Ready && !p.isAsked():
		return true // nor will it be asked
	case o.stuck(p.piece):
		return !s.snubbed || !p.isAsked() // else two snubbed suppliers would take turns
	default:
		return pk.neglects(o, s, p, now)
	}
}
