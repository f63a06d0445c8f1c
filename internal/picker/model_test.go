package picker

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/layout"
)

// modelPicker is a simple and slow model of the Picker. It keeps no counters and no order: every answer is computed from the
// whole state.
type modelPicker struct {
	layout    layout.Layout
	pieces    []*modelPiece
	suppliers []*modelSupplier
	starts    int
	received  int
	loot      int // thefts that gained little
}

type modelPiece struct {
	index    int
	tie      uint32 // random order of pieces of equal priority and availability
	priority uint8
	had      bool // verified
	doubted  bool // verified before, and to be hashed again
	spoiled  bool // failed its hash, and has not passed since
	started  int  // number of the start; 0 if not started
	parole   bool
	turns    map[any]int // see record, by host
	lapses   map[any]int // see record, by host
	stuck    map[any]int // see record, by host
	sole     *modelSupplier
	paused   int  // how many blocks sole had sent when it last choked or left
	waits    bool // for sole, while that chokes or is away
	blocks   []modelBlock
	failures int              // failed attempts without blocks of a known liar
	accused  []*modelSupplier // suppliers whose blocks were dropped at the last failure
}

type modelBlock struct {
	owners []*modelSupplier
	sender *modelSupplier // nil until the block has arrived
	kept   bool           // kept from a failed attempt
}

// storedEarlier is the sender of blocks that were in storage.
var storedEarlier = &modelSupplier{}

type modelSupplier struct {
	real     *Supplier
	all      bool // had every piece after a Bitfield or Haves, and has lost none since
	near     bool // had every piece, and has lost some since
	has      []bool
	queue    []Block
	late     map[Block]int
	choking  bool
	snubbed  bool
	allowed  map[int]bool
	suggests []int
	rate     float64
	shown    time.Time
	asked    bool // a block was requested from it at least once
	rtt      time.Duration
	heard    time.Time
	robbed   time.Duration // longest silence when a request was taken over, since it sent a block
	liar     bool
	given    int            // blocks in pieces that passed
	best     float64        // its highest rate, as the Picker measured it
	was      *modelSupplier // the one that has left, in whose place this is the sole supplier of a piece
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (p *modelPiece) wanted() bool  { return p.priority > 0 && !p.had && !p.doubted }
func (p *modelPiece) waiting() bool { return p.wanted() && p.started == 0 }

func (b *modelBlock) free() bool { return len(b.owners) == 0 && b.sender == nil }

func (m *modelPicker) avail(p *modelPiece) (n int) {
	for _, r := range m.suppliers {
		if r.has[p.index] && !r.all && !r.near {
			n++
		}
	}
	return n
}

// before reports whether p should be started before q.
func (m *modelPicker) before(p, q *modelPiece) bool {
	return cmp.Or(cmp.Compare(q.priority, p.priority), cmp.Compare(m.avail(p), m.avail(q)), cmp.Compare(p.tie, q.tie)) < 0
}

func (m *modelPicker) start(p *modelPiece) {
	m.starts++
	p.started, p.parole, p.sole = m.starts, p.spoiled, nil
	p.blocks = make([]modelBlock, m.layout.NumBlocks(p.index))
}

// retire ends a started piece whose blocks are all free.
func (p *modelPiece) retire() {
	if p.started > 0 && !slices.ContainsFunc(p.blocks, func(b modelBlock) bool { return !b.free() }) {
		p.endTurn()
		p.started = 0
	}
}

// complete reports whether p is started and all its blocks have arrived.
func (p *modelPiece) complete() bool {
	return p.started > 0 && !slices.ContainsFunc(p.blocks, func(b modelBlock) bool { return b.sender == nil })
}

func (m *modelPicker) block(id Block) *modelBlock { return &m.pieces[id.Piece].blocks[id.Index] }

// withdraw removes an outstanding request.
func (m *modelPicker) withdraw(r *modelSupplier, id Block) {
	b := m.block(id)
	b.owners = slices.DeleteFunc(slices.Clone(b.owners), func(o *modelSupplier) bool { return o == r })
	r.queue = slices.DeleteFunc(slices.Clone(r.queue), func(k Block) bool { return k == id })
	r.late[id]++
}

// withdrawAll removes all outstanding requests for a piece, and returns them.
func (m *modelPicker) withdrawAll(p *modelPiece) (cancel []string) {
	for k := range p.blocks {
		id := Block{int32(p.index), int32(k)}
		for _, o := range p.blocks[k].owners {
			cancel = append(cancel, fmt.Sprint(o.real.Origin, id))
			m.withdraw(o, id)
		}
	}
	return cancel
}

// assign makes r the sole supplier.
func (p *modelPiece) assign(r *modelSupplier) {
	if p.sole != r {
		p.sole, p.paused, p.waits = r, 0, false
		p.turns[r.real.Host]++
	}
}

// reassign starts a piece again for r as its sole supplier. Blocks of one that chokes are kept if it has far more credit.
func (m *modelPicker) reassign(p *modelPiece, r *modelSupplier) (cancel []string) {
	if o := p.sole; o != nil && !o.snubbed && o.stuck(p) && o.credit() > fairPart*r.credit() && p.keep() {
		p.accused = slices.DeleteFunc(slices.Clone(p.accused), func(x *modelSupplier) bool { return x == o || x == o.was })
	}
	p.endTurn()
	cancel = m.withdrawAll(p)
	if p.kept() > 0 {
		p.dropTurn()
	} else {
		m.start(p)
	}
	return cancel
}

// due returns the first piece that r takes over at once, because its sole supplier has sent nothing yet, and has more lapses or is
// outranked by r.
func (m *modelPicker) due(r *modelSupplier) *modelPiece {
	for _, p := range m.pieces {
		if p.sole == r && p.wanted() && r.may(p) && slices.ContainsFunc(p.blocks, func(b modelBlock) bool { return b.free() }) {
			return nil // it sends the rest of that first
		}
	}
	for _, p := range m.pieces {
		if p.started == 0 || p.sole == nil || p.sole == r || !r.may(p) {
			continue
		}
		mine := p.lapses[r.real.Host]
		if (r.outranks(p.sole, p) || p.lapses[p.sole.real.Host] > mine && !m.outranked(r, p)) &&
			!slices.ContainsFunc(p.blocks, func(b modelBlock) bool { return b.sender != nil && !b.kept }) {
			return p
		}
	}
	return nil
}

func (m *modelPicker) ask(r *modelSupplier, id Block) {
	b := m.block(id)
	b.owners = append(slices.Clone(b.owners), r)
	r.queue = append(r.queue, id)
	r.asked = true
}

// stuck reports whether requests for p may never be answered.
func (r *modelSupplier) stuck(p *modelPiece) bool {
	return r.snubbed || r.was != nil || r.choking && !r.allowed[p.index]
}

// isAsked reports whether a request for a block of p is outstanding.
func (r *modelSupplier) isAsked(p *modelPiece) bool {
	return slices.ContainsFunc(r.queue, func(id Block) bool { return int(id.Piece) == p.index })
}

func (r *modelSupplier) may(p *modelPiece) bool {
	return r.has[p.index] && (!r.choking || r.allowed[p.index])
}

// choose returns the piece of which free blocks are requested from r next. Of the pieces with the highest priority that r can be
// asked for, it is one that r suggests, else the oldest started one, else the first to start.
func (m *modelPicker) choose(r *modelSupplier, now time.Time) *modelPiece {
	could := func(p *modelPiece) bool {
		held := p.sole != nil && p.sole != r && p.sole.has[p.index] && !m.neglects(p, r, now)
		if held && p.waits && p.sole.stuck(p) {
			held = !m.outdoes(p, r, p.sole, len(p.sole.queue), now)
		} else if held && !p.sole.real.Ready && !p.sole.isAsked(p) {
			held = false
		} else if held && p.sole.stuck(p) { // two snubbed suppliers do not take turns
			held = r.snubbed && p.sole.isAsked(p)
		}
		return p.wanted() && r.may(p) && !m.barred(r, p) && (p.sole == r || !m.outranked(r, p)) && (p.started == 0 ||
			!held && slices.ContainsFunc(p.blocks, func(b modelBlock) bool { return b.free() }))
	}
	var best *modelPiece
	for _, p := range m.pieces {
		if could(p) && (best == nil || p.priority > best.priority || p.priority == best.priority && m.sooner(p, best)) {
			best = p
		}
	}
	for _, i := range r.suggests {
		if p := m.pieces[i]; !r.choking && could(p) && p.priority == best.priority {
			return p
		}
	}
	return best
}

// sooner reports whether p comes before q, which has the same priority.
func (m *modelPicker) sooner(p, q *modelPiece) bool {
	if p.started == 0 && q.started == 0 {
		return m.before(p, q)
	}
	return p.started > 0 && (q.started == 0 || p.started < q.started)
}

// eta returns the time in which r is expected to send n blocks.
func (r *modelSupplier) eta(n int, now time.Time) time.Duration {
	rate := cmp.Or(r.rate, guessedRate)
	sending := time.Duration(float64(n) * layout.BlockSize / rate * float64(time.Second))
	doubt := 1.
	if r.shown != (time.Time{}) { // assumed twice as fast after ten seconds, seven times after a minute
		doubt += min(now.Sub(r.shown).Seconds(), 60) / 10
	}
	eta := max(time.Duration(float64(sending+r.rtt)/doubt), r.robbed)
	if len(r.queue) > 0 || r.choking || r.was != nil {
		eta = max(eta, now.Sub(r.heard))
	}
	return eta
}

// outdoes reports whether r would send all of a piece on parole in under half the time in which o sends n blocks and the free
// ones of the piece. The margin grows with each turn of r's host unless r comes before o, and if the rate of r is unknown.
func (m *modelPicker) outdoes(p *modelPiece, r, o *modelSupplier, n int, now time.Time) bool {
	for _, b := range p.blocks {
		n += one(b.free())
	}
	if o.stuck(p) && r.credit() > fairPart*o.credit() {
		return true
	}
	margin := 2.
	all := 0
	for _, turns := range p.turns {
		all += turns
	}
	for range p.turns[r.real.Host] - (all-p.turns[r.real.Host])/otherTurns {
		if !r.outranks(o, p) {
			margin *= 2
		}
	}
	if r.rate == 0 {
		margin *= 4
	}
	return float64(o.eta(n, now)) > margin*float64(r.eta(len(r.queue)+len(p.blocks)-p.kept(), now))
}

// neglects reports whether no request for a piece is outstanding to its sole supplier, and r outdoes that.
func (m *modelPicker) neglects(p *modelPiece, r *modelSupplier, now time.Time) bool {
	o := p.sole
	return !o.isAsked(p) && m.outdoes(p, r, o, len(o.queue), now)
}

// expected returns the time until the k-th request to r, counting from 0, is answered: very long if it may never be.
func (m *modelPicker) expected(r *modelSupplier, k int, now time.Time) time.Duration {
	if r.stuck(m.pieces[r.queue[k].Piece]) {
		return 1 << 62
	}
	return r.eta(k+1, now)
}

// victim returns the request that r takes over when no block is free.
func (m *modelPicker) victim(r *modelSupplier, now time.Time) (victim *modelSupplier, at Block) {
	if r.snubbed {
		return nil, at
	}
	var latest time.Duration
	for _, o := range m.suppliers {
		for k, id := range o.queue {
			owners := m.block(id).owners
			if !r.may(m.pieces[id.Piece]) || slices.Contains(owners, r) {
				continue
			}
			eta := m.expected(o, k, now)
			worth := len(owners) == 1 || r.rate > 0 || o.rate > 0 || !r.asked || o.stuck(m.pieces[id.Piece])
			for _, other := range owners { // r is sooner than all owners, and replaces the last
				theirs := m.expected(other, slices.Index(other.queue, id), now)
				worth = worth && theirs > 2*r.eta(len(r.queue)+1, now) && (theirs <= eta || len(owners) == 1)
			}
			if p := m.pieces[id.Piece]; !o.stuck(p) { // r is running out of work and has a ration, or gains much
				mine := r.eta(len(r.queue)+1, now)
				busy := len(r.queue) > 0 && mine > stealAhead+2*r.rtt
				worth = worth && (!busy && m.loot < firstLoot+m.received/lootRatio || m.largeGain(o, eta-mine, now))
				worth = worth && (!busy || r.rate >= muchSlower*o.rate)
			}
			if p := m.pieces[id.Piece]; p.parole && (!o.stuck(p) || p.waits) {
				worth = worth && m.outdoes(p, r, o, k+1, now) // the whole piece starts again
			}
			worth = worth && !m.outranked(r, m.pieces[id.Piece])
			if worth && (eta > latest || eta == latest && o == victim) {
				victim, at, latest = o, id, eta
			}
		}
	}
	return victim, at
}

// largeGain reports whether a theft from o with the given gain is not held back: o was measured or silent for a second, and all
// suppliers together answer all requests in less than half the gain, or the gain is ten seconds.
func (m *modelPicker) largeGain(o *modelSupplier, gain time.Duration, now time.Time) bool {
	blocks, rate := 0, 0.
	for _, s := range m.suppliers {
		blocks += len(s.queue)
		if !s.choking && !s.snubbed {
			rate += s.rate
		}
	}
	together := time.Duration(0)
	if rate > 0 {
		together = time.Duration(float64(blocks) * layout.BlockSize / rate * float64(time.Second))
	}
	if o.rate <= 0 && now.Sub(o.heard) >= time.Second {
		return true
	}
	return gain >= time.Second && gain >= min(2*together, muchTime) && (o.real.pace.seconds >= 1 || now.Sub(o.heard) >= time.Second)
}

func (m *modelPicker) Next(r *modelSupplier, n int, now time.Time) (asked []Block, cancel []string) {
	if len(r.queue) == 0 {
		r.heard = now
	}
	if r.snubbed {
		n = min(n, 1-len(r.queue))
	}
	take := func(p *modelPiece) {
		if p.parole {
			p.assign(r)
		}
		for k := range p.blocks {
			if id := (Block{int32(p.index), int32(k)}); len(asked) < n && p.blocks[k].free() {
				m.ask(r, id)
				asked = append(asked, id)
			}
		}
	}
	for p := m.due(r); p != nil && !r.snubbed && len(asked) < n; p = m.due(r) {
		p.sole = nil
		cancel = append(cancel, m.reassign(p, r)...)
		take(p)
	}
	for len(asked) < n {
		if p := m.choose(r, now); p != nil {
			switch {
			case p.started == 0:
				m.start(p)
			case p.sole != nil && p.sole != r:
				cancel = append(cancel, m.reassign(p, r)...)
			}
			take(p)
			continue
		}
		victim, id := m.victim(r, now)
		if victim == nil {
			break
		}
		if p := m.pieces[id.Piece]; p.parole {
			cancel = append(cancel, m.reassign(p, r)...)
			take(p)
			continue
		}
		if p := m.pieces[id.Piece]; !victim.stuck(p) {
			eta := victim.eta(slices.Index(victim.queue, id)+1, now)
			m.loot += one(!m.largeGain(victim, eta-r.eta(len(r.queue)+1, now), now))
			victim.robbed = max(victim.robbed, now.Sub(victim.heard))
		}
		if b := m.block(id); len(b.owners) == 2 {
			cancel = append(cancel, fmt.Sprint(victim.real.Origin, id))
			m.withdraw(victim, id)
		}
		m.ask(r, id)
		asked = append(asked, id)
	}
	return asked, cancel
}

func (m *modelPicker) Received(r *modelSupplier, id Block, now time.Time) (v Verdict, cancel []*Supplier) {
	asked := slices.Contains(r.queue, id)
	switch {
	case asked:
		r.queue = slices.DeleteFunc(slices.Clone(r.queue), func(k Block) bool { return k == id })
	case r.late[id] > 0:
		if r.late[id]--; r.late[id] == 0 {
			delete(r.late, id)
		}
	default:
		return Unrequested, nil
	}
	r.heard, r.snubbed, r.robbed = now, false, 0
	p := m.pieces[id.Piece]
	if p.waiting() {
		m.start(p)
	}
	if p.started == 0 {
		return Wasted, nil
	}
	b := m.block(id)
	if b.sender != nil || p.parole && (p.sole != nil && p.sole != r || m.barred(r, p)) {
		return Wasted, nil
	}
	if p.parole {
		p.assign(r)
	}
	b.sender = r
	m.received++
	for _, o := range b.owners {
		if o != r {
			m.withdraw(o, id)
			cancel = append(cancel, o.real)
		}
	}
	b.owners = nil
	return Accepted, cancel
}

func (m *modelPicker) release(r *modelSupplier, which func(Block) bool) (back []Block) {
	for _, id := range slices.Clone(r.queue) {
		if which(id) {
			m.withdraw(r, id)
			back = append(back, id)
		}
	}
	for _, id := range back {
		m.pieces[id.Piece].retire()
	}
	return back
}

// yield removes requests to r for pieces with a lower priority than the given one: all of them, or those before the last other
// request.
func (m *modelPicker) yield(r *modelSupplier, priority uint8, all bool) (cancel []string) {
	end := len(r.queue)
	less := func(id Block) bool { return m.pieces[id.Piece].priority < priority }
	for !all && end > 0 && less(r.queue[end-1]) {
		end--
	}
	keeps := slices.Clone(r.queue[end:])
	for _, id := range m.release(r, func(id Block) bool { return less(id) && !slices.Contains(keeps, id) }) {
		cancel = append(cancel, fmt.Sprint(r.real.Origin, id))
	}
	return cancel
}

func (m *modelPicker) leave(r *modelSupplier) {
	m.release(r, func(Block) bool { return true })
	for _, p := range m.pieces {
		if p.sole == r && !p.complete() && !p.leave(r) {
			p.dropTurn()
			p.retire()
		}
	}
	m.suppliers = slices.DeleteFunc(m.suppliers, func(o *modelSupplier) bool { return o == r })
}

func (m *modelPicker) prioritise(i int, priority uint8) (cancel []string) {
	p := m.pieces[i]
	if p.priority == priority {
		return nil
	}
	if p.priority = priority; !p.had && priority == 0 && p.started > 0 {
		cancel = m.withdrawAll(p)
	}
	p.retire()
	return cancel
}
