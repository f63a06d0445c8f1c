package picker

import (
	"cmp"
	"slices"
	"time"
)

// Rush fetches piece i as soon as possible. Each free block is requested from the supplier that is expected to send it first,
// before blocks with a lower priority. A block under way is also requested from a second supplier if that one would send it in
// under half the time.
//
// Rush calls admit once. admit cancels the requests in cancel, which makes room, and returns how many of n requests may be sent.
// Rush returns these requests.
func (pk *Picker) Rush(i int, now time.Time, admit func(cancel []Request, n int) int) (ask []Request) {
	ask = pk.plan(i, now)
	p := pk.started[int32(i)]
	if p == nil {
		return nil
	}
	var cancel []Request
	for _, s := range pk.suppliers {
		helps := slices.ContainsFunc(ask, func(r Request) bool { return r.Supplier == s })
		if helps || s.IsAsked(i) {
			cancel = append(cancel, pk.yield(s, p.priority, helps)...)
		}
	}
	ask = ask[:admit(cancel, len(ask))]
	for _, r := range ask {
		pk.request(p, r, now)
	}
	pk.retire(p)
	return ask
}

// plan decides which block to request from which supplier. It starts piece i and changes nothing else.
func (pk *Picker) plan(i int, now time.Time) (ask []Request) {
	if !pk.need.Has(i) {
		return nil
	}
	pk.ranking = ranking{}
	helpers, pending := pk.helpers(i, now)
	if len(helpers) == 0 {
		return nil
	}
	p := pk.started[int32(i)]
	if p == nil {
		p = pk.start(i)
	}
	if p.parole {
		helpers = slices.DeleteFunc(helpers, func(h *helper) bool { return p.sole != h.Supplier && pk.outranked(h.Supplier, p) })
		helpers = soleHelper(p, helpers, now)
	}
	for k := p.cursor; k < p.blocks.len() && p.free > len(ask); k++ {
		if !p.isFree(k) {
			continue
		}
		h := soonest(helpers, nil)
		if h == nil {
			return ask
		}
		ask = append(ask, h.take(Block{p.piece, int32(k)}, now))
	}
	joinRuns(ask, helpers)
	slices.SortFunc(pending, func(a, b pendingBlock) int { return cmp.Compare(b.eta, a.eta) })
	for _, b := range pending {
		h := soonest(helpers, b.owner)
		if h != nil && (b.owner.snubbed || 2*h.eta < b.eta) {
			ask = append(ask, h.take(b.Block, now))
		}
	}
	return ask
}

// A helper is a supplier that can be asked for blocks of the rushed piece.
type helper struct {
	*Supplier
	queued int           // requests before the next one, after those with a lower priority are cancelled
	eta    time.Duration // until the next request is answered
	delay  time.Duration // the part of eta that it costs to end a run early
}

// switchRun is the time that it costs a supplier to end a run and start another one, perhaps on a new connection.
const switchRun = 500 * time.Millisecond

// A pendingBlock is a block that is requested from exactly one supplier.
type pendingBlock struct {
	Block
	owner *Supplier
	eta   time.Duration
}

// helpers returns the suppliers that can be asked for blocks of piece i, and the blocks of it that may be requested from a second
// supplier.
func (pk *Picker) helpers(i int, now time.Time) (helpers []*helper, pending []pendingBlock) {
	p, priority := pk.started[int32(i)], pk.heap.priority[i]
	for _, s := range pk.suppliers {
		stay := 0 // requests with at least the priority of piece i
		for _, q := range s.queue {
			if pk.started[q.Piece].priority < priority {
				continue
			}
			if p != nil && q.Piece == p.piece && !p.parole && pk.block(p, q.Index).copies() == 1 {
				pending = append(pending, pendingBlock{q.Block, s, s.eta(stay, now)})
			}
			stay++
		}
		if s.Ready && s.may(int32(i)) && !(p != nil && pk.barred(s, p)) && !s.snubbed && stay < s.pipe.depth {
			h := &helper{Supplier: s, queued: stay}
			if s.Runs && stay < len(s.queue) {
				h.delay = switchRun
			}
			h.eta = h.delay + s.eta(stay, now)
			helpers = append(helpers, h)
		}
	}
	return helpers, pending
}

// soleHelper returns the one helper that may send the rest of a piece on parole: its sole supplier, or if it has none the helper
// that would be done first.
func soleHelper(p *startedPiece, helpers []*helper, now time.Time) []*helper {
	helpers = slices.DeleteFunc(helpers, func(h *helper) bool { return p.sole != nil && p.sole != h.Supplier })
	if len(helpers) == 0 {
		return nil
	}
	return []*helper{slices.MinFunc(helpers, func(a, b *helper) int {
		return cmp.Compare(a.Supplier.eta(a.queued+p.free, now), b.Supplier.eta(b.queued+p.free, now))
	})}
}

// joinRuns exchanges the blocks of requests so that each supplier is asked for consecutive ones, if any of them sends runs.
func joinRuns(ask []Request, helpers []*helper) {
	if !slices.ContainsFunc(helpers, func(h *helper) bool { return h.Runs }) {
		return
	}
	blocks := make([]Block, len(ask))
	for k, r := range ask {
		blocks[k] = r.Block // in ascending order
	}
	place := func(s *Supplier) int {
		return slices.IndexFunc(helpers, func(h *helper) bool { return h.Supplier == s })
	}
	slices.SortStableFunc(ask, func(a, b Request) int { return cmp.Compare(place(a.Supplier), place(b.Supplier)) })
	for k := range ask {
		ask[k].Block = blocks[k]
	}
}

// take returns a request to h, and counts it.
func (h *helper) take(b Block, now time.Time) Request {
	h.queued++
	h.eta = h.delay + h.Supplier.eta(h.queued, now)
	return Request{h.Supplier, b}
}

// soonest returns the helper with room, except other, that would send another block first, or nil if none has room.
func soonest(helpers []*helper, other *Supplier) (best *helper) {
	for _, h := range helpers {
		if h.Supplier != other && h.queued < h.pipe.depth && (best == nil || h.eta < best.eta) {
			best = h
		}
	}
	return best
}
