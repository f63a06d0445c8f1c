package picker

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
)

// modelPicker is the picker told the plain, slow way: nothing is counted ahead, nothing is
// ordered, every question is answered by looking at everything.
type modelPicker struct {
	layout    layout.Layout
	pieces    []*modelPiece
	suppliers []*modelSupplier
	starts    int
}

type modelPiece struct {
	index    int
	tie      uint32 // drawn once, orders pieces that are equal otherwise
	priority uint8
	had      bool // verified
	doubted  bool // verified once, to be checked anew
	spoiled  bool // failed its hash, and has not passed since
	started  int  // when, in starts; 0 is not started
	parole   bool
	turns    map[any]int // how often a sole sender at each address began it
	lapses   map[any]int // how often one let it wait, or sent nothing of it
	sole     *modelSupplier
	blocks   []modelBlock
}

type modelBlock struct {
	owners []*modelSupplier
	sender *modelSupplier // nil while it is not here
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

// before tells whether p is to be started before q.
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
		p.lapse()
		p.started = 0
	}
}

// complete tells whether all blocks of a started piece are here.
func (p *modelPiece) complete() bool {
	return p.started > 0 && !slices.ContainsFunc(p.blocks, func(b modelBlock) bool { return b.sender == nil })
}

func (m *modelPicker) block(id Block) *modelBlock { return &m.pieces[id.Piece].blocks[id.Index] }

// unask ends a request that was not answered.
func (m *modelPicker) unask(r *modelSupplier, id Block) {
	b := m.block(id)
	b.owners = slices.DeleteFunc(slices.Clone(b.owners), func(o *modelSupplier) bool { return o == r })
	r.queue = slices.DeleteFunc(slices.Clone(r.queue), func(k Block) bool { return k == id })
	r.late[id]++
}

// unaskAll ends all requests for a piece, and tells whom of what.
func (m *modelPicker) unaskAll(p *modelPiece) (cancel []string) {
	for k := range p.blocks {
		id := Block{int32(p.index), int32(k)}
		for _, o := range p.blocks[k].owners {
			cancel = append(cancel, fmt.Sprint(o.real.Origin, id))
			m.unask(o, id)
		}
	}
	return cancel
}

// entrust makes r the sole sender.
func (p *modelPiece) entrust(r *modelSupplier) {
	if p.sole != r {
		p.sole = r
		p.turns[r.real.Host]++
	}
}

// lapse ends the time of the sole sender, and counts it if that came to nothing.
func (p *modelPiece) lapse() {
	if o := p.sole; o != nil && (o.stuck(p) || !slices.ContainsFunc(p.blocks, func(b modelBlock) bool { return b.sender != nil })) {
		p.lapses[o.real.Host]++
	}
	p.sole = nil
}

// begin anew with another sole sender.
func (m *modelPicker) wrest(p *modelPiece) (cancel []string) {
	p.lapse()
	cancel = m.unaskAll(p)
	m.start(p)
	return cancel
}

// entrusted is the first piece that r gets at once from one who has lapsed more often, and sent nothing yet.
func (m *modelPicker) entrusted(r *modelSupplier) *modelPiece {
	for _, p := range m.pieces {
		if p.started > 0 && p.sole != nil && p.sole != r && r.may(p) && p.lapses[p.sole.real.Host] > p.lapses[r.real.Host] &&
			!slices.ContainsFunc(p.blocks, func(b modelBlock) bool { return b.sender != nil }) {
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

// stuck tells whether nothing may come of requests for p.
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
		return p.wanted() && r.may(p) && (p.started == 0 ||
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

// sooner tells whether p comes before q, which is wanted as much.
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

// outdoes tells whether r has the whole of a piece on parole by half the time in which o has sent n blocks
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
	return float64(o.eta(n, now)) > margin*float64(r.eta(len(r.queue)+len(p.blocks), now))
}

// neglects tells whether the sole sender of a piece is asked for none of it, and slower than r.
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
			if p := m.pieces[id.Piece]; p.parole && !o.stuck(p) {
				worth = worth && m.outdoes(p, r, o, k+1, now) // it begins anew with r, whole
			}
			if worth && (eta > latest || eta == latest && o == victim) {
				victim, at, latest = o, id, eta
			}
		}
	}
	return victim, at
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
			p.entrust(r)
		}
		for k := range p.blocks {
			if id := (Block{int32(p.index), int32(k)}); len(asked) < n && p.blocks[k].free() {
				m.ask(r, id)
				asked = append(asked, id)
			}
		}
	}
	for p := m.entrusted(r); p != nil && !r.snubbed && len(asked) < n; p = m.entrusted(r) {
		p.sole = nil
		cancel = append(cancel, m.wrest(p)...)
		take(p)
	}
	for len(asked) < n {
		if p := m.choose(r, now); p != nil {
			switch {
			case p.started == 0:
				m.start(p)
			case p.sole != nil && p.sole != r:
				cancel = append(cancel, m.wrest(p)...)
			}
			take(p)
			continue
		}
		victim, id := m.victim(r, now)
		if victim == nil {
			break
		}
		if p := m.pieces[id.Piece]; p.parole {
			cancel = append(cancel, m.wrest(p)...)
			take(p)
			continue
		}
		if b := m.block(id); len(b.owners) == 2 {
			cancel = append(cancel, fmt.Sprint(victim.real.Origin, id))
			m.unask(victim, id)
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
	if b.sender != nil || p.parole && p.sole != nil && p.sole != r {
		return Wasted, nil
	}
	if p.parole {
		p.entrust(r)
	}
	b.sender = r
	for _, o := range b.owners {
		if o != r {
			m.unask(o, id)
			cancel = append(cancel, o.real)
		}
	}
	b.owners = nil
	return Accepted, cancel
}

func (m *modelPicker) giveBack(r *modelSupplier, which func(Block) bool) (back []Block) {
	for _, id := range slices.Clone(r.queue) {
		if which(id) {
			m.unask(r, id)
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
	for _, id := range m.giveBack(r, func(id Block) bool { return less(id) && !slices.Contains(keeps, id) }) {
		cancel = append(cancel, fmt.Sprint(r.real.Origin, id))
	}
	return cancel
}

func (m *modelPicker) leave(r *modelSupplier) {
	m.giveBack(r, func(Block) bool { return true })
	for _, p := range m.pieces {
		if p.sole == r && !p.complete() {
			for k := range p.blocks {
				p.blocks[k] = modelBlock{}
			}
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
		cancel = m.unaskAll(p)
	}
	p.retire()
	return cancel
}

// begin anew after a hash that was not right.
func (p *modelPiece) failed() {
	if p.sole != nil {
		p.lapses[p.sole.real.Host]++
	}
	p.spoiled, p.started, p.sole, p.parole = true, 0, nil, false
	if p.lapses == nil {
		p.turns, p.lapses = map[any]int{}, map[any]int{}
	}
}

// history drives a scheduler and its model through the same random events.
type history struct {
	t    *testing.T
	rng  *rand.Rand
	seed uint64
	step int
	now  time.Time
	s    *Picker
	m    *modelPicker
	went string // the last event
}

func (h *history) fail(format string, args ...any) {
	h.t.Helper()
	h.t.Fatalf("seed %d, step %d, %s: %s", h.seed, h.step, h.went, fmt.Sprintf(format, args...))
}

func newHistory(t *testing.T, seed uint64) *history {
	rng := rand.New(rand.NewPCG(seed, 9))
	n := 1 + rng.IntN(12)
	length := int64(1+rng.IntN(5)) * layout.BlockSize
	if rng.IntN(3) == 0 {
		length -= rng.Int64N(layout.BlockSize)
	}
	l := layout.New(length, layout.File{Length: length*int64(n) - rng.Int64N(length)})
	h := &history{t: t, rng: rng, seed: seed, now: epoch, s: New(l, rng.Uint64()), m: &modelPicker{layout: l}}
	for i := range n {
		h.m.pieces = append(h.m.pieces, &modelPiece{index: i, tie: uint32(h.s.heap.key(int32(i)))})
	}
	return h
}

// anyone is a connected supplier, or nil.
func (h *history) anyone() *modelSupplier {
	if len(h.m.suppliers) == 0 {
		return nil
	}
	return h.m.suppliers[h.rng.IntN(len(h.m.suppliers))]
}

// someHave draws what a supplier has.
func (h *history) someHave() (has []bool, b bits.Set) {
	n := len(h.m.pieces)
	has, b = make([]bool, n), bits.New(n)
	share := []float64{0, 0.3, 0.7, 1}[h.rng.IntN(4)]
	for i := range has {
		if has[i] = h.rng.Float64() < share; has[i] {
			b.Add(i)
		}
	}
	return has, b
}

func (h *history) sameCancels(want []string, got []Request) {
	var is []string
	for _, c := range got {
		is = append(is, fmt.Sprint(c.Supplier.Origin, c.Block))
	}
	slices.Sort(is)
	slices.Sort(want)
	if !slices.Equal(want, is) {
		h.fail("cancels %v, want %v", is, want)
	}
}

// event has one random thing happen to both, and compares what they answer.
func (h *history) event() {
	h.step++
	h.now = h.now.Add(time.Duration(h.rng.IntN(2000)) * time.Millisecond)
	r := h.anyone()
	i := h.rng.IntN(len(h.m.pieces))
	p := h.m.pieces[i]
	switch op := h.rng.IntN(100); {
	case op < 4 && len(h.m.suppliers) < 6 || r == nil:
		h.went = "join"
		has, bits := h.someHave()
		origin := netip.AddrPortFrom(netip.AddrFrom4([4]byte{80, 0, 0, byte(h.step % 7)}), uint16(h.step))
		r := &modelSupplier{real: &Supplier{Ready: true, Origin: origin, Host: origin.Addr()}, has: has, all: !slices.Contains(has, false), late: make(map[Block]int), allowed: make(map[int]bool)}
		r.real.has = bits
		h.s.join(r.real)
		h.m.suppliers = append(h.m.suppliers, r)
	case op < 6:
		h.went = fmt.Sprint(r.real.Origin, " leaves")
		h.s.Leave(r.real)
		h.m.leave(r)
	case op < 12:
		h.went = fmt.Sprint(r.real.Origin, " has ", i)
		if got := h.s.Have(r.real, i); got == r.has[i] {
			h.fail("news %v", got)
		}
		r.has[i] = true
	case op < 14:
		h.went = fmt.Sprint(r.real.Origin, " does not have ", i)
		h.s.DontHave(r.real, i)
		h.m.giveBack(r, func(id Block) bool { return int(id.Piece) == i })
		r.has[i], r.all = false, false
	case op < 15 && len(r.queue) == 0:
		h.went = fmt.Sprint(r.real.Origin, " sends a bitfield")
		has, bits := h.someHave()
		h.s.Bitfield(r.real, bits)
		r.has, r.all = has, !slices.Contains(has, false)
	case op < 24:
		priority := uint8(h.rng.IntN(3))
		h.went = fmt.Sprint("priority ", priority, " for ", i)
		h.sameCancels(h.m.prioritise(i, priority), h.s.Prioritise(i, priority))
	case op < 44:
		n := 1 + h.rng.IntN(8)
		h.went = fmt.Sprint(r.real.Origin, " asks for ", n)
		want, cancel := h.m.Next(r, n, h.now)
		got, cancelled := h.s.Next(r.real, n, h.now, nil)
		if !slices.Equal(want, got) {
			h.fail("got %v, want %v", got, want)
		}
		h.sameCancels(cancel, cancelled)
	case op < 74:
		id := Block{int32(i), int32(h.rng.IntN(h.m.layout.NumBlocks(i)))}
		if n := len(r.queue); n > 0 && h.rng.IntN(10) > 0 {
			id = r.queue[h.rng.IntN(n)]
		} else if len(r.late) > 0 && h.rng.IntN(2) == 0 {
			id = slices.MinFunc(slices.Collect(maps.Keys(r.late)), func(a, b Block) int {
				return cmp.Or(cmp.Compare(a.Piece, b.Piece), cmp.Compare(a.Index, b.Index))
			})
		}
		h.went = fmt.Sprint(r.real.Origin, " sends ", id)
		v, cancel := h.m.Received(r, id, h.now)
		got := received(h.s, r.real, id, h.now)
		if v != got.Verdict || v == Accepted && !h.s.Arrived(int(id.Piece)).Has(int(id.Index)) {
			h.fail("%+v, want Verdict %v", got, v)
		}
		for _, o := range h.m.suppliers {
			if slices.Contains(got.Cancel[:], o.real) != slices.Contains(cancel, o.real) {
				h.fail("cancels %v, want %v", got.Cancel, cancel)
			}
		}
	case op < 80:
		some := h.rng.IntN(3)
		h.went = fmt.Sprint(r.real.Origin, " gives back")
		h.s.Release(r.real, func(id Block) bool { return (int(id.Index)+int(id.Piece))%3 >= some })
		h.m.giveBack(r, func(id Block) bool { return (int(id.Index)+int(id.Piece))%3 >= some })
	case op < 81:
		h.went = fmt.Sprint(r.real.Origin, " yields")
		priority, all := uint8(1+h.rng.IntN(2)), h.rng.IntN(2) == 0
		h.sameCancels(h.m.yield(r, priority, all), h.s.yield(r.real, priority, all))
	case op < 82:
		h.rush(p)
	case op < 90:
		h.character(r, i)
	case op < 92 && p.waiting() && !p.spoiled:
		h.went = fmt.Sprint("storage holds some of ", i)
		h.m.start(p)
		blocks := bits.New(len(p.blocks))
		for k := range p.blocks {
			if k == 0 || h.rng.IntN(2) == 0 {
				blocks.Add(k)
				p.blocks[k].sender = storedEarlier
			}
		}
		h.s.Restore(i, &blocks)
	case op < 93 && p.had:
		h.went = fmt.Sprint(i, " is in doubt")
		h.s.Doubt(i)
		p.had, p.doubted = false, true
	case op < 95 && p.doubted:
		h.went = fmt.Sprint(i, " is lost")
		h.s.Lost(i)
		p.doubted = false
	default:
		h.finish(p)
	}
}

// rush has a piece fetched soonest, and asks that the plan is a good one.
func (h *history) rush(p *modelPiece) {
	h.went = fmt.Sprint("rush ", p.index)
	room := make(map[*Supplier]int)
	for _, r := range h.m.suppliers {
		r.real.pipe.depth = h.rng.IntN(12)
		room[r.real] = r.real.pipe.depth
	}
	var cancel []Request
	planned := 0
	limited := h.rng.IntN(4) == 0
	plan := h.s.Rush(p.index, h.now, func(c []Request, n int) int {
		cancel, planned = c, n
		if limited {
			n = h.rng.IntN(n + 1)
		}
		return n
	})
	h.rushCancels(p, cancel, plan, len(plan) < planned)
	if p.waiting() && len(plan) > 0 {
		h.m.start(p)
	}
	for _, e := range plan {
		k := slices.IndexFunc(h.m.suppliers, func(r *modelSupplier) bool { return r.real == e.Supplier })
		r, b := h.m.suppliers[k], h.m.block(e.Block)
		switch {
		case int(e.Block.Piece) != p.index || !p.wanted() || b.sender != nil || slices.Contains(b.owners, r):
			h.fail("%v is sent for %v", r.real.Origin, e.Block)
		case !r.may(p) || r.snubbed:
			h.fail("%v cannot be sent for %v", r.real.Origin, e.Block)
		case p.parole && (len(b.owners) > 0 || p.sole != nil && p.sole != r):
			h.fail("%v is sent for %v, which is on parole", r.real.Origin, e.Block)
		case len(b.owners) > 1:
			h.fail("%v is sent for %v as the third", r.real.Origin, e.Block)
		}
		if p.parole {
			p.entrust(r)
		}
		if len(r.queue) == 0 {
			r.heard = h.now
		}
		h.m.ask(r, e.Block)
		room[e.Supplier]--
		if room[e.Supplier] < 0 {
			h.fail("%v is sent for too many", r.real.Origin)
		}
	}
	p.retire()
	if !p.wanted() || p.started == 0 || p.parole || len(plan) < planned {
		return
	}
	for _, r := range h.m.suppliers {
		stays := 0
		for _, id := range r.queue {
			stays += one(h.m.pieces[id.Piece].priority >= p.priority && !slices.ContainsFunc(plan, func(e Request) bool { return e.Supplier == r.real && e.Block == id }))
		}
		if r.may(p) && !r.snubbed && room[r.real] > stays && slices.ContainsFunc(p.blocks, func(b modelBlock) bool { return b.free() }) {
			h.fail("%v could be sent for what is free", r.real.Origin)
		}
	}
}

// rushCancels compares what is cancelled for a piece that is rushed: what is less wanted of those who are asked
// for blocks of it, and before it where it is under way already. Of a plan that was cut short it is not known who
// was to be asked.
func (h *history) rushCancels(p *modelPiece, cancel []Request, plan []Request, cut bool) {
	if cut {
		for _, c := range cancel {
			if h.m.pieces[c.Block.Piece].priority >= p.priority {
				h.fail("%v makes room", c.Block)
			}
			k := slices.IndexFunc(h.m.suppliers, func(r *modelSupplier) bool { return r.real == c.Supplier })
			h.m.giveBack(h.m.suppliers[k], func(id Block) bool { return id == c.Block })
		}
		return
	}
	var want []string
	for _, r := range h.m.suppliers {
		asked := slices.ContainsFunc(plan, func(e Request) bool { return e.Supplier == r.real })
		if asked || p.started > 0 && slices.ContainsFunc(r.queue, func(id Block) bool { return int(id.Piece) == p.index }) {
			want = append(want, h.m.yield(r, p.priority, asked)...)
		}
	}
	h.sameCancels(want, cancel)
}

// character changes what a supplier is like.
func (h *history) character(r *modelSupplier, i int) {
	switch h.rng.IntN(5) {
	case 0:
		r.choking = !r.choking
		h.went = fmt.Sprint(r.real.Origin, " chokes: ", r.choking)
	case 1:
		h.went = fmt.Sprint(r.real.Origin, " allows fast: ", i)
		r.allowed[i] = true
	case 2:
		h.went = fmt.Sprint(r.real.Origin, " suggests ", i)
		r.real.Suggest(i)
		r.suggests = append(r.suggests, i)
		r.suggests = r.suggests[max(0, len(r.suggests)-maxSuggested):]
	case 3:
		r.snubbed = len(r.queue) > 0
		h.went = fmt.Sprint(r.real.Origin, " snubs: ", r.snubbed)
	default:
		r.rate = []float64{0, 1e4, 1e5, 1e7}[h.rng.IntN(4)]
		r.rtt = time.Duration(h.rng.IntN(200)) * time.Millisecond
		r.shown = h.now
		h.went = fmt.Sprint(r.real.Origin, " is at ", r.rate)
	}
	r.real.Choking, r.real.snubbed, r.real.pace.rate, r.real.pipe.rtt, r.real.pace.measured = r.choking, r.snubbed, r.rate, r.rtt, r.shown
	r.real.allowed = make(map[int32]struct{})
	for i := range r.allowed {
		r.real.allowed[int32(i)] = struct{}{}
	}
}

// finish has the hash of a piece be right or wrong, if it is complete, or in doubt, or found on disk.
func (h *history) finish(p *modelPiece) {
	switch {
	case p.complete() && h.rng.IntN(3) == 0:
		h.went = fmt.Sprint(p.index, " failed its hash")
		digests := make([]uint64, len(p.blocks))
		h.s.Failed(p.index, digests)
		p.failed()
	case p.complete(), p.doubted, p.waiting() && h.rng.IntN(4) == 0:
		h.went = fmt.Sprint(p.index, " is verified")
		cancel, digests := h.m.unaskAll(p), make([]uint64, len(p.blocks))
		p.had, p.doubted, p.spoiled, p.turns, p.lapses, p.started, p.sole = true, false, false, nil, nil, 0, nil
		got, _ := h.s.Passed(p.index, digests)
		h.sameCancels(cancel, got)
	}
}

// compare looks at everything.
func (h *history) compare() {
	seeds := 0
	for k, r := range h.m.suppliers {
		real := r.real
		if h.s.suppliers[k] != real {
			h.fail("supplier %d is another", k)
		}
		want, fresh := 0, 0
		for i, p := range h.m.pieces {
			if r.has[i] != real.Has(i) {
				h.fail("supplier %v: piece %d held %v", real.Origin, i, real.Has(i))
			}
			want += one(r.has[i] && p.wanted())
			fresh += one(r.has[i] && p.waiting())
		}
		seeds += one(r.all)
		if real.all != r.all {
			h.fail("supplier %v has all: %v", real.Origin, real.all)
		}
		if !r.all && (real.want != want || real.fresh != fresh) {
			h.fail("supplier %v: want %d, fresh %d, should be %d and %d", real.Origin, real.want, real.fresh, want, fresh)
		}
		if h.s.Interesting(real) != (want > 0) {
			h.fail("supplier %v: interesting %v, though it has %d wanted pieces", real.Origin, h.s.Interesting(real), want)
		}
		if !slices.EqualFunc(r.queue, real.queue, func(id Block, a outstanding) bool { return a.Block == id }) {
			h.fail("supplier %v: queue %v, want %v", real.Origin, real.queue, r.queue)
		}
		if len(r.late) != real.forgiven.len() || r.heard != real.heard || r.snubbed != real.snubbed {
			h.fail("supplier %v: %d late, heard %v, snubbed %v", real.Origin, real.forgiven.len(), real.heard, real.snubbed)
		}
	}
	if h.s.seeds != seeds || len(h.s.suppliers) != len(h.m.suppliers) {
		h.fail("%d seeds among %d", h.s.seeds, len(h.s.suppliers))
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
			continue // it starts what is at the top
		}
		if got := h.s.heap.first(&r.real.has); (first == nil) != (got < 0) || first != nil && got != first.index {
			h.fail("supplier %v would start %d, want %+v", r.real.Origin, got, first)
		}
	}
}

// compareStarted compares a started piece.
func (h *history) compareStarted(p *modelPiece, real *startedPiece) {
	free, left := 0, 0
	for k := range p.blocks {
		b, rb := &p.blocks[k], &real.blocks[k]
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
		case b.sender != nil && b.sender != storedEarlier && rb.sender == b.sender.real.sender:
		default:
			h.fail("block %v: sender %d", id, rb.sender)
		}
		if rb.here() && rb.copies() > 0 {
			h.fail("block %v is here and under way", id)
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
	if (real.sole == nil) != (p.sole == nil) || p.sole != nil && real.sole != p.sole.real {
		h.fail("piece %d: another sole sender", p.index)
	}
	if real.open != (free > 0 && p.priority > 0) {
		h.fail("piece %d: open %v with %d free blocks and priority %d", p.index, real.open, free, p.priority)
	}
}

// A million random events, after each of which the picker agrees with its model in everything.
func TestPickerAgreesWithModel(t *testing.T) {
	histories := 1000
	if testing.Short() {
		histories = 50
	}
	for seed := range uint64(histories) {
		h := newHistory(t, seed)
		for range 1000 {
			h.event()
			h.compare()
		}
	}
}

// However often all ask at one moment, they come to rest: nobody takes blocks from another who takes them
// back at once.
func TestPickerComesToRest(t *testing.T) {
	for seed := range uint64(300) {
		h := newHistory(t, seed)
		for range 40 {
			for range 10 {
				h.event()
			}
			moves := 0
			for moved := true; moved; {
				moved = false
				for _, r := range h.m.suppliers {
					got, _ := h.s.Next(r.real, 6-len(r.real.queue), h.now, nil)
					want, _ := h.m.Next(r, 6-len(r.queue), h.now)
					if !slices.Equal(got, want) {
						h.fail("got %v, want %v", got, want)
					}
					moved = moved || len(got) > 0
					moves += len(got)
				}
				if moves > 2000 {
					h.fail("no rest")
				}
			}
		}
	}
}
