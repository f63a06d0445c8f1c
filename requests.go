package torrent

import (
	"slices"
	"time"
)

// cancelled is a request that is no longer wanted of a remote.
type cancelled struct {
	remote *remote
	block  blockID
}

func cancels(r *remote, blocks []blockID) (cancel []cancelled) {
	for _, id := range blocks {
		cancel = append(cancel, cancelled{r, id})
	}
	return cancel
}

// disown gives back every request under way for p.
func (s *scheduler) disown(p *startedPiece) (cancel []cancelled) {
	for k := range p.blocks {
		for _, o := range p.blocks[k].owner {
			if o != nil {
				id := blockID{p.piece, int32(k)}
				cancel = append(cancel, cancelled{o, id})
				s.unask(o, id)
			}
		}
	}
	return cancel
}

// unask takes the request for id from r's queue and gives the block back.
func (s *scheduler) unask(r *remote, id blockID) {
	for k := range r.queue {
		if r.queue[k].blockID == id {
			r.dequeue(k)
			s.release(r, id)
			return
		}
	}
}

// release ends r's ownership of a block that it was asked for and has not sent.
func (s *scheduler) release(r *remote, id blockID) {
	r.late.add(id)
	p := s.started[id.piece]
	b := &p.blocks[id.index]
	b.disclaim(r)
	if b.free() {
		p.free++
		p.cursor = min(p.cursor, int(id.index))
		s.reopen(p)
	}
}

// disclaim takes r off the block's owners.
func (b *block) disclaim(r *remote) {
	for k, o := range b.owner {
		if o == r {
			b.owner[k] = nil
		}
	}
}

// Release frees the blocks that r was asked for and that which holds for, and returns them: others may be
// asked for them. They are no offence if they come all the same.
func (s *scheduler) Release(r *remote, which func(blockID) bool) (freed []blockID) {
	kept := r.queue[:0:0]
	for _, a := range r.queue {
		if which(a.blockID) {
			freed = append(freed, a.blockID)
		} else {
			kept = append(kept, a)
		}
	}
	r.queue = kept
	for _, id := range freed {
		s.release(r, id)
		s.retire(s.started[id.piece])
	}
	return freed
}

// Snub releases all that r was asked for if it has been silent for too long, and has it asked for no more
// than one block until it sends one. What it returns is to be cancelled, or a third copy of it might be under
// way when r wakes up.
func (s *scheduler) Snub(r *remote, now time.Time) []cancelled {
	if !r.overdue(now) {
		return nil
	}
	r.snubbed = true
	return cancels(r, s.Release(r, func(blockID) bool { return true }))
}

// Rejected frees a block that r says that it will not send (BEP 6), unless that was released before. It tells
// whether a block was freed, and whether r was ever asked for it.
func (s *scheduler) Rejected(r *remote, id blockID) (freed, asked bool) {
	if r.late.take(id) {
		return false, true
	}
	if len(s.Release(r, func(b blockID) bool { return b == id })) == 0 {
		return false, false
	}
	r.late.take(id)
	// It has the piece no more, or only lets others ask for it: not to be asked again for now.
	delete(r.allowed, id.piece)
	if !r.Choking {
		// Too much was asked at once, or it has the piece no more.
		r.pipe.setLimit(max(startDepth, len(r.queue)))
		if r.refused == id.piece {
			s.lose(r, int(id.piece))
		}
		r.refused = id.piece
	}
	return true, true
}

// next appends to out up to n blocks that r is to be asked for now, and takes note of the requests.
// Of what is most wanted, the pieces that r suggests come first: a seed suggests what nobody has, and a
// block of anything else that it sends is one that others could have sent. Then come started pieces, the
// oldest first, so that they get finished; then the next piece in heap order that r has; then, when no
// block is free, what is stolen.
// A request that a theft makes pointless is returned to be cancelled.
func (s *scheduler) next(r *remote, n int, now time.Time, out []blockID) ([]blockID, []cancelled) {
	r.expect(now)
	if r.snubbed {
		n = min(n, 1-len(r.queue))
	}
	end := len(out) + n
	if n <= 0 {
		return out, nil
	}
	var cancel []cancelled
	for p := s.entrusted(r); p != nil && len(out) < end; p = s.entrusted(r) {
		p.sole = nil
		p, cancel = s.wrest(p, cancel)
		out = s.take(p, r, end, now, out)
	}
	top := unknown
	for k := 0; k < len(s.open) && len(out) < end; {
		p := s.open[k]
		if top == unknown && s.heap.topPriority() > p.priority {
			top = s.first(r) // once for all of s.open: it is the costly part
		}
		if top >= 0 && s.heap.priority[top] > p.priority {
			out = s.take(s.start(top), r, end, now, out)
			top, k = unknown, 0
			continue
		}
		if q := s.suggested(r, p.priority, now); q != nil {
			p, top, k = q, unknown, 0
		}
		if s.may(r, p, now) {
			if p.sole != nil && p.sole != r {
				p, cancel = s.wrest(p, cancel)
				top, k = unknown, 0
			}
			out = s.take(p, r, end, now, out)
			if !p.open {
				continue // it gave its place in s.open to the next
			}
		}
		k++
	}
	for len(out) < end {
		top := s.first(r)
		if top < 0 {
			break
		}
		out = s.take(s.start(top), r, end, now, out)
	}
	for len(out) < end {
		victim, at := s.victim(r, now)
		if victim == nil {
			break
		}
		id := victim.queue[at].blockID
		p := s.started[id.piece]
		if p.parole {
			p, cancel = s.wrest(p, cancel)
			out = s.take(p, r, end, now, out)
			continue
		}
		b := &p.blocks[id.index]
		if b.copies() == len(b.owner) {
			s.unask(victim, id) // it makes room
			cancel = append(cancel, cancelled{victim, id})
		}
		s.claim(b, r, id, now)
		s.steals++
		out = append(out, id)
	}
	return out, cancel
}

// unknown is in the place of what first returns while nobody has asked.
const unknown = -2

// first is the first piece in heap order that r may start, or -1. That can take a pass over all that r has.
func (s *scheduler) first(r *remote) int {
	top := s.heap.top()
	if top < 0 || !r.all && r.fresh == 0 {
		return -1
	}
	switch {
	case r.Choking:
		top = -1
		for i := range r.allowed {
			if s.heap.holds(int(i)) && r.Has(int(i)) && (top < 0 || s.heap.key(i) < s.heap.key(int32(top))) {
				top = int(i)
			}
		}
	case !r.all:
		top = s.heap.first(&r.has)
	}
	if top < 0 {
		return -1
	}
	for _, i := range r.suggested {
		if s.heap.holds(int(i)) && r.Has(int(i)) && !r.Choking && s.heap.priority[i] == s.heap.priority[top] {
			return int(i)
		}
	}
	return top
}

// suggested is a piece of some priority that r suggests and of which it can be asked for a free block; nil
// if there is none.
func (s *scheduler) suggested(r *remote, priority uint8, now time.Time) *startedPiece {
	for _, i := range r.suggested {
		if r.Choking || s.heap.priority[i] != priority || !r.Has(int(i)) {
			continue
		}
		if s.heap.holds(int(i)) {
			return s.start(int(i))
		}
		if p := s.started[i]; p != nil && p.open && s.may(r, p, now) {
			return p
		}
	}
	return nil
}

// may tells whether r can be asked for blocks of p.
func (s *scheduler) may(r *remote, p *startedPiece, now time.Time) bool {
	if !r.may(p.piece) {
		return false
	}
	switch o := p.sole; {
	case o == nil, o == r, !o.Has(int(p.piece)):
		return true
	case o.stuck(p.piece):
		return !r.snubbed || !o.IsAsked(int(p.piece)) // else two that are snubbed would take it in turns
	default:
		return s.neglects(o, r, p, now)
	}
}

// take asks r for free blocks of p until out is as long as end.
func (s *scheduler) take(p *startedPiece, r *remote, end int, now time.Time, out []blockID) []blockID {
	if p.parole {
		s.entrust(p, r)
	}
	for ; p.free > 0 && len(out) < end; p.cursor++ {
		if b := &p.blocks[p.cursor]; b.free() {
			id := blockID{p.piece, int32(p.cursor)}
			s.claim(b, r, id, now)
			p.free--
			out = append(out, id)
		}
	}
	if p.free == 0 {
		s.close(p)
	}
	return out
}

// wrest takes a piece on parole from its sole sender and begins it anew, for another.
func (s *scheduler) wrest(p *startedPiece, cancel []cancelled) (*startedPiece, []cancelled) {
	i := int(p.piece)
	s.lapse(p)
	cancel = append(cancel, s.disown(p)...)
	s.restart(p)
	return s.start(i), cancel
}

// claim makes r an owner of the block.
func (s *scheduler) claim(b *block, r *remote, id blockID, now time.Time) {
	k := 0
	if b.owner[0] != nil {
		k = 1
	}
	b.owner[k] = r
	r.enqueue(ask{id, now})
}

// verdict is what became of a block that was received.
type verdict uint8

const (
	accepted verdict = iota // it was wanted: keep it
	wasted                  // it was asked for once, and is not wanted any more
	unasked                 // nobody asked for it
)

// A receipt says what a block that was received sets off.
type receipt struct {
	verdict verdict
	cancel  [2]*remote // others that were asked for it, and need not send it
	again   bool       // it was asked for twice, and may answer the first request: the second is to be cancelled
}

// received takes note that r sent a block whole.
func (s *scheduler) received(r *remote, id blockID, now time.Time) (got receipt) {
	if r.answered(id, s.blockLen(id), now) {
		got.again = r.late.has(id)
	} else if !r.late.take(id) {
		got.verdict = unasked
		return got
	}
	r.heard = now
	r.snubbed = false
	got.verdict = wasted
	p := s.started[id.piece]
	if p == nil && s.heap.holds(int(id.piece)) {
		p = s.start(int(id.piece)) // it comes late, and is welcome
	}
	if p == nil {
		return got
	}
	b := &p.blocks[id.index]
	if b.here() || p.parole && p.sole != nil && p.sole != r {
		return got
	}
	got.verdict = accepted
	if p.parole {
		s.entrust(p, r)
	}
	if b.free() {
		p.free--
	}
	b.sender = s.senderOf(r)
	p.left--
	b.disclaim(r)
	got.cancel = b.owner
	for _, o := range got.cancel {
		if o != nil {
			s.unask(o, id)
		}
	}
	if p.free == 0 {
		s.close(p)
	}
	return got
}

// senderOf is r's index into senders. Only who sends something has one.
func (s *scheduler) senderOf(r *remote) int32 {
	if r.sender == noSender {
		if r.sender = int32(slices.Index(s.senders, r.Origin)); r.sender < 0 {
			r.sender = int32(len(s.senders))
			s.senders = append(s.senders, r.Origin)
		}
	}
	return r.sender
}
