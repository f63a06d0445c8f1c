package picker

import (
	"slices"
	"time"
)

// disown gives back every request under way for p.
func (pk *Picker) disown(p *startedPiece) (cancel []Request) {
	for k := range p.blocks {
		for _, o := range p.blocks[k].owner {
			if o != nil {
				id := Block{p.piece, int32(k)}
				cancel = append(cancel, Request{o, id})
				pk.unask(o, id)
			}
		}
	}
	return cancel
}

// unask takes the request for id from s's queue and gives the block back.
func (pk *Picker) unask(s *Supplier, id Block) {
	for k := range s.queue {
		if s.queue[k].Block == id {
			s.dequeue(k)
			pk.release(s, id)
			return
		}
	}
}

// release ends s's ownership of a block that it was asked for and has not sent.
func (pk *Picker) release(s *Supplier, id Block) {
	s.forgiven.add(id)
	p := pk.started[id.Piece]
	b := &p.blocks[id.Index]
	b.disclaim(s)
	if b.free() {
		p.free++
		p.cursor = min(p.cursor, int(id.Index))
		pk.reopen(p)
	}
}

// disclaim takes s off the block's owners.
func (b *block) disclaim(s *Supplier) {
	for k, o := range b.owner {
		if o == s {
			b.owner[k] = nil
		}
	}
}

// Release frees the blocks that s was asked for and that which holds for: others may be asked for them. They are
// no offence if they come all the same. It returns how many they are.
func (pk *Picker) Release(s *Supplier, which func(Block) bool) (n int) {
	s.queue = slices.DeleteFunc(s.queue, func(a outstanding) bool {
		if !which(a.Block) {
			return false
		}
		pk.release(s, a.Block)
		pk.retire(pk.started[a.Piece])
		n++
		return true
	})
	return n
}

// takeBack is Release of what is to be cancelled, too.
func (pk *Picker) takeBack(s *Supplier, which func(Block) bool) (cancel []Request) {
	pk.Release(s, func(b Block) bool {
		if !which(b) {
			return false
		}
		cancel = append(cancel, Request{s, b})
		return true
	})
	return cancel
}

// Snub releases all that s was asked for if it has been silent for too long, and has it asked for no more
// than one block until it sends one. What it returns is to be cancelled, or a third copy of it might be under
// way when s wakes up.
func (pk *Picker) Snub(s *Supplier, now time.Time) []Request {
	if !s.overdue(now) {
		return nil
	}
	s.snubbed = true
	return pk.takeBack(s, func(Block) bool { return true })
}

// Rejected frees a block that s says that it will not send (BEP 6), unless that was released before. It tells
// whether a block was freed, and whether s was ever asked for it.
func (pk *Picker) Rejected(s *Supplier, id Block) (freed, asked bool) {
	if s.forgiven.take(id) {
		return false, true
	}
	if pk.Release(s, func(b Block) bool { return b == id }) == 0 {
		return false, false
	}
	s.forgiven.take(id)
	// It has the piece no more, or only lets others ask for it: not to be asked again for now.
	delete(s.allowed, id.Piece)
	if !s.Choking {
		// Too much was asked at once, or it has the piece no more.
		s.pipe.setLimit(max(startDepth, len(s.queue)))
		if s.refused == id.Piece {
			pk.lose(s, int(id.Piece))
		}
		s.refused = id.Piece
	}
	return true, true
}

// next appends to out up to n blocks that s is to be asked for now, and takes note of the requests.
// Of what is most wanted, the pieces that s suggests come first: a seed suggests what nobody has, and a
// block of anything else that it sends is one that others could have sent. Then come started pieces, the
// oldest first, so that they get finished; then the next piece in heap order that s has; then, when no
// block is free, what is stolen.
// A request that a theft makes pointless is returned to be cancelled.
func (pk *Picker) Next(s *Supplier, n int, now time.Time, out []Block) ([]Block, []Request) {
	s.expect(now)
	if s.snubbed {
		n = min(n, 1-len(s.queue))
	}
	end := len(out) + n
	if n <= 0 {
		return out, nil
	}
	var cancel []Request
	for p := pk.entrusted(s); p != nil && len(out) < end; p = pk.entrusted(s) {
		p.sole = nil
		p, cancel = pk.wrest(p, cancel)
		out = pk.take(p, s, end, now, out)
	}
	top := unknown
	for k := 0; k < len(pk.open) && len(out) < end; {
		p := pk.open[k]
		if top == unknown && pk.heap.topPriority() > p.priority {
			top = pk.first(s) // once for all of pk.open: it is the costly part
		}
		if top >= 0 && pk.heap.priority[top] > p.priority {
			out = pk.take(pk.start(top), s, end, now, out)
			top, k = unknown, 0
			continue
		}
		if q := pk.suggested(s, p.priority, now); q != nil {
			p, top, k = q, unknown, 0
		}
		if pk.may(s, p, now) {
			if p.sole != nil && p.sole != s {
				p, cancel = pk.wrest(p, cancel)
				top, k = unknown, 0
			}
			out = pk.take(p, s, end, now, out)
			if !p.open {
				continue // it gave its place in pk.open to the next
			}
		}
		k++
	}
	for len(out) < end {
		top := pk.first(s)
		if top < 0 {
			break
		}
		out = pk.take(pk.start(top), s, end, now, out)
	}
	for len(out) < end {
		victim, at := pk.victim(s, now)
		if victim == nil {
			break
		}
		id := victim.queue[at].Block
		p := pk.started[id.Piece]
		if p.parole {
			p, cancel = pk.wrest(p, cancel)
			out = pk.take(p, s, end, now, out)
			continue
		}
		b := &p.blocks[id.Index]
		if b.copies() == len(b.owner) {
			pk.unask(victim, id) // it makes room
			cancel = append(cancel, Request{victim, id})
		}
		pk.claim(b, s, id, now)
		pk.steals++
		out = append(out, id)
	}
	return out, cancel
}

// unknown is in the place of what first returns while nobody has asked.
const unknown = -2

// first is the first piece in heap order that s may start, or -1. That can take a pass over all that s has.
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

// suggested is a piece of some priority that s suggests and of which it can be asked for a free block; nil
// if there is none.
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

// may tells whether s can be asked for blocks of p.
func (pk *Picker) may(s *Supplier, p *startedPiece, now time.Time) bool {
	if !s.may(p.piece) {
		return false
	}
	switch o := p.sole; {
	case o == nil, o == s, !o.Has(int(p.piece)):
		return true
	case o.stuck(p.piece):
		return !s.snubbed || !o.IsAsked(int(p.piece)) // else two that are snubbed would take it in turns
	default:
		return pk.neglects(o, s, p, now)
	}
}

// take asks s for free blocks of p until out is as long as end.
func (pk *Picker) take(p *startedPiece, s *Supplier, end int, now time.Time, out []Block) []Block {
	if p.parole {
		pk.entrust(p, s)
	}
	for ; p.free > 0 && len(out) < end; p.cursor++ {
		if b := &p.blocks[p.cursor]; b.free() {
			id := Block{p.piece, int32(p.cursor)}
			pk.claim(b, s, id, now)
			p.free--
			out = append(out, id)
		}
	}
	if p.free == 0 {
		pk.close(p)
	}
	return out
}

// wrest takes a piece on parole from its sole sender and begins it anew, for another.
func (pk *Picker) wrest(p *startedPiece, cancel []Request) (*startedPiece, []Request) {
	i := int(p.piece)
	pk.lapse(p)
	cancel = append(cancel, pk.disown(p)...)
	pk.restart(p)
	return pk.start(i), cancel
}

// claim makes s an owner of the block.
func (pk *Picker) claim(b *block, s *Supplier, id Block, now time.Time) {
	k := 0
	if b.owner[0] != nil {
		k = 1
	}
	b.owner[k] = s
	s.enqueue(outstanding{id, now})
}

// Verdict is what became of a block that was received.
type Verdict uint8

const (
	Accepted    Verdict = iota // it was wanted: keep it
	Wasted                     // it was asked for once, and is not wanted any more
	Unrequested                // nobody asked for it
)

// A Receipt says what a block that was received sets off.
type Receipt struct {
	Verdict Verdict
	Cancel  [2]*Supplier // others that were asked for it, and need not send it
	Again   bool         // it was asked for twice, and may answer the first request: the second is to be cancelled
}

// received takes note that s sent a block whole.
func (pk *Picker) Received(s *Supplier, id Block, now time.Time) (got Receipt) {
	if s.answered(id, pk.blockLen(id), now) {
		got.Again = s.forgiven.has(id)
	} else if !s.forgiven.take(id) {
		got.Verdict = Unrequested
		return got
	}
	s.heard = now
	s.snubbed = false
	got.Verdict = Wasted
	p := pk.started[id.Piece]
	if p == nil && pk.heap.holds(int(id.Piece)) {
		p = pk.start(int(id.Piece)) // it comes late, and is welcome
	}
	if p == nil {
		return got
	}
	b := &p.blocks[id.Index]
	if b.here() || p.parole && p.sole != nil && p.sole != s {
		return got
	}
	got.Verdict = Accepted
	if p.parole {
		pk.entrust(p, s)
	}
	if b.free() {
		p.free--
	}
	b.sender = pk.senderOf(s)
	p.left--
	b.disclaim(s)
	got.Cancel = b.owner
	for _, o := range got.Cancel {
		if o != nil {
			pk.unask(o, id)
		}
	}
	if p.free == 0 {
		pk.close(p)
	}
	return got
}

// senderOf is s's index into senders. Only who sends something has one.
func (pk *Picker) senderOf(s *Supplier) int32 {
	if s.sender == noSender {
		if s.sender = int32(slices.Index(pk.senders, s.Origin)); s.sender < 0 {
			s.sender = int32(len(pk.senders))
			pk.senders = append(pk.senders, s.Origin)
		}
	}
	return s.sender
}
