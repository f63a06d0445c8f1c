package picker

import (
	"slices"
	"time"
)

// Verdict says what to do with a received block.
type Verdict uint8

const (
	Accepted    Verdict = iota // the block is wanted: keep it
	Wasted                     // the block was requested, but is no longer wanted
	Unrequested                // the block was never requested
)

// A Receipt is the result of Received.
type Receipt struct {
	Verdict Verdict
	Cancel  [2]*Supplier // other suppliers with a request for the block, which is to be cancelled
	Again   bool         // the block may answer an earlier, released request: cancel the last one, or it may come twice
}

// Received records that s sent a whole block. The caller acts on the Receipt.
func (pk *Picker) Received(s *Supplier, id Block, now time.Time) (r Receipt) {
	if s.answer(id, pk.blockLen(id), now) {
		r.Again = s.forgiven.has(id)
	} else if !s.forgiven.take(id) {
		r.Verdict = Unrequested
		return r
	}
	s.heard, s.snubbed, s.robbed = now, false, 0
	if s.refused == id.Piece {
		s.refused = -1 // it has the piece
	}
	pk.intake.add(now)
	r.Verdict = Wasted
	p := pk.started[id.Piece]
	if p == nil && pk.heap.holds(int(id.Piece)) {
		p = pk.start(int(id.Piece)) // the request was released, but the block is still wanted
	}
	if p == nil {
		return r
	}
	b := pk.block(p, id.Index)
	if b.here() || p.parole && (p.sole != nil && p.sole != s || p.sole == nil && pk.barred(s, p)) {
		return r
	}
	r.Verdict = Accepted
	pk.received++
	if p.parole {
		pk.assign(p, s)
	}
	if b.free() {
		p.free--
	}
	b.sender = pk.senderOf(s)
	pk.senders.all[b.sender].clock(s.pace.rate)
	p.left--
	b.removeOwner(s)
	r.Cancel = b.owner
	for _, o := range r.Cancel {
		if o != nil {
			pk.withdraw(o, id)
		}
	}
	if p.free == 0 {
		pk.close(p)
	}
	return r
}

// Rejected records that s rejected a request (BEP 6). asked is whether the block was requested from s. freed is whether the
// request was still outstanding, so that the block can be requested from others now.
func (pk *Picker) Rejected(s *Supplier, id Block, now time.Time) (asked, freed bool) {
	if s.forgiven.take(id) {
		return true, false
	}
	k := slices.IndexFunc(s.queue, func(q outstanding) bool { return q.Block == id })
	if k < 0 {
		return false, false
	}
	at := s.queue[k].at
	pk.Release(s, func(b Block) bool { return b == id })
	s.forgiven.take(id) // the block will not arrive
	delete(s.allowed, id.Piece)
	if !s.Choking {
		// Too many requests were outstanding to s, or s no longer has the piece. If it rejects another request for the piece, and has
		// sent no block of it meanwhile, the latter is assumed. If it has credit, that request must have been made after the reject.
		s.pipe.setLimit(max(startDepth, len(s.queue)))
		if s.refused != id.Piece {
			s.refused, s.refusedAt = id.Piece, now
		} else if !at.Before(s.refusedAt) || pk.creditOf(s) == 0 {
			pk.refuse(s, id.Piece, now)
		}
	}
	return true, true
}

// Snub checks whether s has not answered for too long. If so, it releases the requests to s, and no more than one block is
// requested from s until it sends one. The caller cancels the requests in cancel, because s may send the blocks after others
// have.
func (pk *Picker) Snub(s *Supplier, now time.Time) (cancel []Request) {
	if !s.overdue(now) {
		return nil
	}
	s.snubbed = true
	pk.stuckAtTurns(s)
	return pk.takeBack(s, func(Block) bool { return true })
}

// Release removes the outstanding requests to s for the blocks that which selects, and returns their number. The blocks can be
// requested from others now. If s sends them nevertheless, they do not count as unrequested.
func (pk *Picker) Release(s *Supplier, which func(Block) bool) (n int) {
	pk.work += int64(len(s.queue))
	s.queue = slices.DeleteFunc(s.queue, func(q outstanding) bool {
		if !which(q.Block) {
			return false
		}
		pk.free(s, q.Block)
		pk.retire(pk.started[q.Piece])
		n++
		return true
	})
	if n > 0 && s.Careful && (s.Choking || s.snubbed) {
		s.pipe.again()
	}
	return n
}

// takeBack is Release, but returns the requests, for the caller to cancel. Each cancel is a pass over the messages that wait to
// be sent, and counts as work.
func (pk *Picker) takeBack(s *Supplier, which func(Block) bool) (cancel []Request) {
	queued := len(s.queue)
	defer func() { pk.work += int64(len(cancel) * queued / requestsPerStep) }()
	pk.Release(s, func(b Block) bool {
		if !which(b) {
			return false
		}
		cancel = append(cancel, Request{s, b})
		return true
	})
	return cancel
}

// withdraw releases one request to s, for the caller to cancel.
func (pk *Picker) withdraw(s *Supplier, id Block) {
	for k := range s.queue {
		if s.queue[k].Block == id {
			s.dequeue(k)
			pk.free(s, id)
			return
		}
	}
}

// withdrawAll releases all requests for p, for the caller to cancel.
func (pk *Picker) withdrawAll(p *startedPiece) (cancel []Request) {
	for k, b := range p.blocks.known {
		for _, o := range b.owner {
			if o != nil {
				id := Block{p.piece, int32(k)}
				cancel = append(cancel, Request{o, id})
				pk.withdraw(o, id)
			}
		}
	}
	return cancel
}

// free removes s from the owners of a block, after its request was removed from the queue of s.
func (pk *Picker) free(s *Supplier, id Block) {
	s.forgiven.add(id)
	p := pk.started[id.Piece]
	b := pk.block(p, id.Index)
	b.removeOwner(s)
	if b.free() {
		p.free++
		p.cursor = min(p.cursor, int(id.Index))
		pk.reopen(p)
	}
}

// claim makes s an owner of block b and adds the request to its queue.
func (pk *Picker) claim(b *block, s *Supplier, id Block, now time.Time) {
	b.addOwner(s)
	s.enqueue(outstanding{id, now})
}

// request records a request for a block of p. The block may be requested from another supplier already.
func (pk *Picker) request(p *startedPiece, r Request, now time.Time) {
	r.Supplier.expect(now)
	b := pk.block(p, r.Block.Index)
	if b.free() {
		p.free--
		if p.parole {
			pk.assign(p, r.Supplier)
		}
	} else {
		pk.steals++
	}
	pk.claim(b, r.Supplier, r.Block, now)
	if p.free == 0 {
		pk.close(p)
	}
}

// yield releases requests to s for pieces with a lower priority than the given one: all of them, or only those before the last
// request with at least that priority.
func (pk *Picker) yield(s *Supplier, priority uint8, all bool) (cancel []Request) {
	end := len(s.queue)
	for !all && end > 0 && pk.started[s.queue[end-1].Piece].priority < priority {
		end--
	}
	k := 0
	return pk.takeBack(s, func(b Block) bool {
		k++
		return k <= end && pk.started[b.Piece].priority < priority
	})
}
