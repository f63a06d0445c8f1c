package picker

import "time"

// Next appends to out up to n blocks to ask of s now, and records the requests. The caller cancels requests that
// this makes pointless.
//
// Of the pieces with the highest priority, those that s suggests come first: a seed suggests what no other peer
// has. Then come started pieces, the oldest first, so that they are completed; then new ones in the order of the
// heap. If no block is free, s takes over what others are asked for.
func (pk *Picker) Next(s *Supplier, n int, now time.Time, out []Block) (blocks []Block, cancel []Request) {
	s.expect(now)
	if s.snubbed {
		n = min(n, 1-len(s.queue))
	}
	if n <= 0 {
		return out, nil
	}
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
	end    int // how long out may become
	cancel []Request
}

func (t *turn) full() bool { return len(t.out) >= t.end }

// takeDue takes pieces on parole of which it is the turn of s.
func (t *turn) takeDue() {
	for !t.full() {
		p := t.pk.due(t.s)
		if p == nil {
			return
		}
		p.sole = nil // giving way is no lapse
		t.take(t.reassign(p))
	}
}

// takeOpen takes free blocks of started pieces, and what is wanted more than these.
func (t *turn) takeOpen() {
	pk, s := t.pk, t.s
	if s.Choking && !pk.allowsOpen(s) {
		return
	}
	top := unknown // what s would start next
	seen := 0      // how many of those before k it has: strangers may have thousands open that no other has
	for k := 0; k < len(pk.open) && !t.full() && (s.all || seen < s.open); {
		p := pk.open[k]
		pk.work++
		if top == unknown && pk.heap.topPriority() > p.priority {
			top = pk.first(s) // once for all of pk.open: it is the costly part
		}
		if top >= 0 && pk.heap.priority[top] > p.priority {
			t.take(pk.start(top))
			top, k, seen = unknown, 0, 0
			continue
		}
		if q := pk.suggested(s, p.priority, t.now); q != nil {
			p, top, k, seen = q, unknown, 0, 0
		}
		if pk.may(s, p, t.now) {
			if p.sole != nil && p.sole != s {
				p = t.reassign(p)
				top, k, seen = unknown, 0, 0
			}
			t.take(p)
			if !p.open {
				continue // the next one has its place in pk.open
			}
		}
		if s.Has(int(pk.open[k].piece)) {
			seen++
		}
		k++
	}
}

// allowsOpen reports whether some open piece may be requested of s while it chokes.
func (pk *Picker) allowsOpen(s *Supplier) bool {
	for i := range s.allowed {
		if pk.isOpen(int(i)) > 0 && s.Has(int(i)) {
			return true
		}
	}
	return false
}

// takeNew starts pieces.
func (t *turn) takeNew() {
	for !t.full() {
		top := t.pk.first(t.s)
		if top < 0 {
			return
		}
		t.take(t.pk.start(top))
	}
}

// steal takes over blocks that others are asked for.
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
		if !s.Runs && !victim.stuck(id.Piece) {
			gain := victim.eta(at, t.now) - s.eta(len(s.queue), t.now)
			if !pk.outlook(t.now).large(s, victim, gain) {
				pk.loot++
			}
		}
		full := b.copies() == len(b.owner)
		if full {
			pk.withdraw(victim, id) // s takes its place
		}
		pk.claim(b, s, id, t.now)
		if victim.Runs && !full {
			pk.withdraw(victim, id) // or it would send the rest of its run after what is taken over
		}
		if victim.Runs || full {
			t.cancel = append(t.cancel, Request{victim, id})
		}
		pk.steals++
		t.out = append(t.out, id)
	}
}

// take takes free blocks of p.
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

// reassign takes a piece on parole from its sole supplier and starts it again, for s.
func (t *turn) reassign(p *startedPiece) *startedPiece {
	i := p.piece
	t.pk.endTurn(p)
	t.cancel = append(t.cancel, t.pk.withdrawAll(p)...)
	t.pk.restart(p)
	if p = t.pk.started[i]; p == nil {
		p = t.pk.start(int(i))
	}
	return p
}

// unknown stands for a result of first that has not been asked for.
const unknown = -2

// first is the first piece in heap order that s can start, or -1. It may take a pass over all that s has.
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

// suggested is a piece of the given priority that s suggests and can be asked for, or nil. It is started.
func (pk *Picker) suggested(s *Supplier, priority uint8, now time.Time) *startedPiece {
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
	if !s.may(p.piece) || pk.barred(s, p) {
		return false
	}
	switch o := p.sole; {
	case o == nil, o == s, !o.Has(int(p.piece)):
		return true
	case o.stuck(p.piece):
		return !s.snubbed || !o.IsAsked(int(p.piece)) // or two that are snubbed would take turns
	default:
		return pk.neglects(o, s, p, now)
	}
}
