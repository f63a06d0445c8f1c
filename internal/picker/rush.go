package picker

import (
	"cmp"
	"slices"
	"time"
)

// Rush has piece i here soonest, by whoever can help, before what is less wanted. Each free block of it is asked
// of the supplier from which it may be expected first, once that supplier has put off what is less wanted. A block
// under way is asked of a second one where that has it in under half the time.
//
// admit is told what is to be cancelled for that, and is asked how many of so many requests may go out. Rush
// returns these.
func (pk *Picker) Rush(i int, now time.Time, admit func(cancel []Request, n int) int) []Request {
	plan := pk.plan(i, now)
	p := pk.started[int32(i)]
	if p == nil {
		return nil
	}
	var cancel []Request
	for _, s := range pk.suppliers {
		runs := slices.ContainsFunc(plan, func(e Request) bool { return e.Supplier == s })
		if runs || s.IsAsked(i) {
			cancel = append(cancel, pk.yield(s, p.priority, runs)...)
		}
	}
	plan = plan[:admit(cancel, len(plan))]
	for _, e := range plan {
		pk.run(e, now)
	}
	pk.retire(p)
	return plan
}

// plan says who is to be asked for what so as to have piece i soonest. Nothing is changed yet, but that the piece
// is started.
func (pk *Picker) plan(i int, now time.Time) (plan []Request) {
	if !pk.need.Has(i) {
		return nil
	}
	p := pk.started[int32(i)]
	priority := pk.heap.priority[i]
	var able []*helper
	var pending []*underWay
	for _, s := range pk.suppliers {
		n := 0 // requests of s that stay
		for _, a := range s.queue {
			if pk.started[a.Piece].priority < priority {
				continue
			}
			if p != nil && a.Piece == p.piece && !p.parole && p.blocks[a.Index].copies() == 1 {
				pending = append(pending, &underWay{s, a.Block, s.eta(n, now)})
			}
			n++
		}
		if s.Ready && s.may(int32(i)) && !s.snubbed && n < s.pipe.depth {
			able = append(able, &helper{s, n, s.eta(n, now)})
		}
	}
	if len(able) == 0 {
		return nil
	}
	if p == nil {
		p = pk.start(i)
	}
	if p.parole {
		able = soleHelper(p, able, now)
	}
	for k := p.cursor; k < len(p.blocks) && p.free > len(plan); k++ {
		if !p.blocks[k].free() {
			continue
		}
		first := soonest(able, nil)
		if first == nil {
			return plan
		}
		plan = append(plan, first.send(Block{p.piece, int32(k)}, now))
	}
	slices.SortFunc(pending, func(a, b *underWay) int { return cmp.Compare(b.eta, a.eta) })
	for _, l := range pending {
		thief := soonest(able, l.owner)
		if thief != nil && (l.owner.snubbed || 2*thief.eta < l.eta) {
			plan = append(plan, thief.send(l.Block, now))
		}
	}
	return plan
}

// soleHelper is who is to send all that lacks of a piece on parole: who began, or who would have it first.
func soleHelper(p *startedPiece, able []*helper, now time.Time) []*helper {
	able = slices.DeleteFunc(able, func(h *helper) bool { return p.sole != nil && p.sole != h.supplier })
	if len(able) == 0 {
		return nil
	}
	return []*helper{slices.MinFunc(able, func(a, b *helper) int {
		return cmp.Compare(a.supplier.eta(a.queued+p.free, now), b.supplier.eta(b.queued+p.free, now))
	})}
}

// A helper is a supplier that can be sent for blocks.
type helper struct {
	supplier *Supplier
	queued   int           // requests before the next one
	eta      time.Duration // of the next one
}

func (h *helper) send(id Block, now time.Time) Request {
	h.queued++
	h.eta = h.supplier.eta(h.queued, now)
	return Request{h.supplier, id}
}

// soonest is the runner other than one supplier with the least eta, or nil.
func soonest(able []*helper, other *Supplier) (best *helper) {
	for _, h := range able {
		if h.supplier != other && h.queued < h.supplier.pipe.depth && (best == nil || h.eta < best.eta) {
			best = h
		}
	}
	return best
}

// underWay is a block that one supplier alone was asked for.
type underWay struct {
	owner *Supplier
	Block
	eta time.Duration
}

// run takes note that a supplier is asked for a block as planned.
func (pk *Picker) run(e Request, now time.Time) {
	e.Supplier.expect(now)
	p := pk.started[e.Block.Piece]
	b := &p.blocks[e.Block.Index]
	if b.free() {
		p.free--
		if p.parole {
			pk.entrust(p, e.Supplier)
		}
	} else {
		pk.steals++
	}
	pk.claim(b, e.Supplier, e.Block, now)
	if p.free == 0 {
		pk.close(p)
	}
}

// yield releases what s was asked for of pieces less wanted than priority: all of it, or only what stands before
// the last request that is not less wanted.
func (pk *Picker) yield(s *Supplier, priority uint8, all bool) []Request {
	end := len(s.queue)
	for !all && end > 0 && pk.started[s.queue[end-1].Piece].priority < priority {
		end--
	}
	k := 0
	return pk.takeBack(s, func(id Block) bool {
		k++
		return k <= end && pk.started[id.Piece].priority < priority
	})
}
