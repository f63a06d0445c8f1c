package picker

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/layout"
)

// modelPicker is the picker told the plain, slow way: nothing is counted ahead, nothing is
// ordered, every question is answered by looking at everything.
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
	tie      uint32 // drawn once, orders pieces that are equal otherwise
	priority uint8
	had      bool // verified
	doubted  bool // verified once, and to be hashed again
	spoiled  bool // failed its hash, and has not passed since
	started  int  // when, in starts; 0 is not started
	parole   bool
	turns    map[any]int // how often a sole supplier of each host began it
	lapses   map[any]int // how often one let it wait, or sent nothing of it
	sole     *modelSupplier
	blocks   []modelBlock
	failures int              // attempts that no liar explains
	accused  []*modelSupplier // whose blocks were dropped when it failed last
}

type modelBlock struct {
	owners []*modelSupplier
	sender *modelSupplier // nil while it is not here
	kept   bool           // it is here from an attempt that failed
}

// storedEarlier is the sender of blocks that an earlier run left.
var storedEarlier = &modelSupplier{}

type modelSupplier struct {
	real     *Supplier
	all      bool // it had every piece when it told of them all at once, and lost none since
	has      []bool
	queue    []Block
	late     map[Block]int
	choking  bool
	snubbed  bool
	allowed  map[int]bool
	suggests []int
	rate     float64
	shown    time.Time
	asked    bool // ever
	rtt      time.Duration
	heard    time.Time
	liar     bool
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
		if r.has[p.index] && !r.all {
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

// retire lets go of a started piece of which nothing is here or under way.
func (p *modelPiece) retire() {
	if p.started > 0 && !slices.ContainsFunc(p.blocks, func(b modelBlock) bool { return !b.free() }) {
		p.endTurn()
		p.started = 0
	}
}

// complete reports whether all blocks of a started piece are here.
func (p *modelPiece) complete() bool {
	return p.started > 0 && !slices.ContainsFunc(p.blocks, func(b modelBlock) bool { return b.sender == nil })
}

func (m *modelPicker) block(id Block) *modelBlock { return &m.pieces[id.Piece].blocks[id.Index] }

// unask ends a request that was not answered.
func (m *modelPicker) withdraw(r *modelSupplier, id Block) {
	b := m.block(id)
	b.owners = slices.DeleteFunc(slices.Clone(b.owners), func(o *modelSupplier) bool { return o == r })
	r.queue = slices.DeleteFunc(slices.Clone(r.queue), func(k Block) bool { return k == id })
	r.late[id]++
}

// unaskAll ends all requests for a piece, and returns them.
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
		p.sole = r
		p.turns[r.real.Host]++
	}
}

// endTurn ends the time of the sole supplier, and counts it if that came to nothing.
func (p *modelPiece) endTurn() {
	if o := p.sole; o != nil && (o.stuck(p) || !slices.ContainsFunc(p.blocks, func(b modelBlock) bool { return b.sender != nil && !b.kept })) {
		p.lapses[o.real.Host]++
	}
	p.sole = nil
}

// reassign starts a piece again, for another sole supplier.
func (m *modelPicker) reassign(p *modelPiece) (cancel []string) {
	p.endTurn()
	cancel = m.withdrawAll(p)
	if p.kept() > 0 {
		p.dropTurn()
	} else {
		m.start(p)
	}
	return cancel
}

// entrusted is the first piece that r gets at once from one that has lapsed more often and sent nothing yet.
func (m *modelPicker) due(r *modelSupplier) *modelPiece {
	for _, p := range m.pieces {
		if p.started > 0 && p.sole != nil && p.sole != r && r.may(p) && p.lapses[p.sole.real.Host] > p.lapses[r.real.Host] &&
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
	return r.snubbed || r.choking && !r.allowed[p.index]
}

func (r *modelSupplier) may(p *modelPiece) bool {
	return r.has[p.index] && (!r.choking || r.allowed[p.index])
}

// choose is the piece of which r is asked for free blocks next: of the most wanted ones that it may
// be asked for one that it suggests; else a started one, the oldest; else the first to be started.
func (m *modelPicker) choose(r *modelSupplier, now time.Time) *modelPiece {
	could := func(p *modelPiece) bool {
		held := p.sole != nil && p.sole != r && p.sole.has[p.index] && !m.neglects(p, r, now)
		if held && p.sole.stuck(p) { // two that are snubbed do not take it in turns
			held = r.snubbed && slices.ContainsFunc(p.sole.queue, func(id Block) bool { return int(id.Piece) == p.index })
		}
		return p.wanted() && r.may(p) && !m.barred(r, p) && (p.started == 0 ||
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

// sooner reports whether p comes before q, which is wanted as much.
func (m *modelPicker) sooner(p, q *modelPiece) bool {
	if p.started == 0 && q.started == 0 {
		return m.before(p, q)
	}
	return p.started > 0 && (q.started == 0 || p.started < q.started)
}

// eta is when r is expected to have sent n blocks.
func (r *modelSupplier) eta(n int, now time.Time) time.Duration {
	rate := cmp.Or(r.rate, guessedRate)
	sending := time.Duration(float64(n) * layout.BlockSize / rate * float64(time.Second))
	doubt := 1.
	if r.shown != (time.Time{}) { // twice as fast as it was ten seconds ago, seven times after a minute
		doubt += min(now.Sub(r.shown).Seconds(), 60) / 10
	}
	eta := time.Duration(float64(sending+r.rtt) / doubt)
	if len(r.queue) > 0 {
		eta = max(eta, now.Sub(r.heard))
	}
	return eta
}

// outdoes reports whether r has the whole of a piece on parole by half the time in which o has sent n blocks
// and those of the piece that are free, less often with each turn of r's, and if its rate is unknown.
func (m *modelPicker) outdoes(p *modelPiece, r, o *modelSupplier, n int, now time.Time) bool {
	for _, b := range p.blocks {
		n += one(b.free())
	}
	margin := 2.
	for range p.turns[r.real.Host] {
		margin *= 2
	}
	if r.rate == 0 {
		margin *= 4
	}
	return float64(o.eta(n, now)) > margin*float64(r.eta(len(r.queue)+len(p.blocks)-p.kept(), now))
}

// neglects reports whether the sole supplier of a piece is asked for none of it, and slower than r.
func (m *modelPicker) neglects(p *modelPiece, r *modelSupplier, now time.Time) bool {
	o := p.sole
	asked := slices.ContainsFunc(o.queue, func(id Block) bool { return int(id.Piece) == p.index })
	return !asked && m.outdoes(p, r, o, len(o.queue), now)
}

// expected is when r's k-th request from 0 may be answered, perhaps never.
func (m *modelPicker) expected(r *modelSupplier, k int, now time.Time) time.Duration {
	if r.stuck(m.pieces[r.queue[k].Piece]) {
		return 1 << 62
	}
	return r.eta(k+1, now)
}

// victim is the request that r takes over when nothing is free.
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
			for _, other := range owners { // sooner than all, in the place of the last
				theirs := m.expected(other, slices.Index(other.queue, id), now)
				worth = worth && theirs > 2*r.eta(len(r.queue)+1, now) && (theirs <= eta || len(owners) == 1)
			}
			if p := m.pieces[id.Piece]; !o.stuck(p) { // it is out of work, and it pays for sure or there are few such thefts
				mine := r.eta(len(r.queue)+1, now)
				worth = worth && (len(r.queue) == 0 || mine <= stealAhead+2*r.rtt) &&
					(m.loot < firstLoot+m.received/lootRatio || m.largeGain(o, eta-mine, now))
			}
			if p := m.pieces[id.Piece]; p.parole && !o.stuck(p) {
				worth = worth && m.outdoes(p, r, o, k+1, now) // all of it starts again
			}
			if worth && (eta > latest || eta == latest && o == victim) {
				victim, at, latest = o, id, eta
			}
		}
	}
	return victim, at
}

// largeGain reports whether a theft from o that gains so much is worth it: it was silent for a second, and all together
// need less than half of that for what they are asked for.
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
	return gain >= time.Second && gain >= 2*together && now.Sub(o.heard) >= time.Second
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
		cancel = append(cancel, m.reassign(p)...)
		take(p)
	}
	for len(asked) < n {
		if p := m.choose(r, now); p != nil {
			switch {
			case p.started == 0:
				m.start(p)
			case p.sole != nil && p.sole != r:
				cancel = append(cancel, m.reassign(p)...)
			}
			take(p)
			continue
		}
		victim, id := m.victim(r, now)
		if victim == nil {
			break
		}
		if p := m.pieces[id.Piece]; p.parole {
			cancel = append(cancel, m.reassign(p)...)
			take(p)
			continue
		}
		if p := m.pieces[id.Piece]; !victim.stuck(p) {
			eta := victim.eta(slices.Index(victim.queue, id)+1, now)
			m.loot += one(!m.largeGain(victim, eta-r.eta(len(r.queue)+1, now), now))
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
	r.heard, r.snubbed = now, false
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

// yield has r give back what is less wanted than a priority, as far as something else stands behind it, or all.
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
		if p.sole == r && !p.complete() {
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
