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

// A history drives a picker and its model through the same random events.
type history struct {
	t    *testing.T
	rng  *rand.Rand
	seed uint64
	step int
	now  time.Time
	s    *Picker
	m    *modelPicker
	went string // description of the last event
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

// anyone returns a random connected supplier, or nil if there is none.
func (h *history) anyone() *modelSupplier {
	if len(h.m.suppliers) == 0 {
		return nil
	}
	return h.m.suppliers[h.rng.IntN(len(h.m.suppliers))]
}

// someHave returns a random set of pieces for a supplier.
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

// event makes one random event happen to both, and compares their results.
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
			h.fail("new: %v", got)
		}
		r.has[i] = true
	case op < 14:
		h.went = fmt.Sprint(r.real.Origin, " does not have ", i)
		h.s.DontHave(r.real, i)
		h.m.release(r, func(id Block) bool { return int(id.Piece) == i })
		r.has[i], r.all, r.near = false, false, r.all || r.near
	case op == 14 && h.rng.IntN(4) == 0:
		h.went = fmt.Sprint(r.real.Origin, " has everything")
		if got := h.s.HaveAll(r.real); got != slices.Contains(r.has, false) {
			h.fail("new: %v", got)
		}
		for i := range r.has {
			r.has[i] = true
		}
		r.all, r.near = r.real.all, r.real.near
	case op < 15 && len(r.queue) == 0:
		h.went = fmt.Sprint(r.real.Origin, " sends a bitfield")
		has, bits := h.someHave()
		h.s.Bitfield(r.real, bits)
		r.has, r.all, r.near = has, !slices.Contains(has, false), false
	case op < 24:
		priority := uint8(h.rng.IntN(3))
		h.went = fmt.Sprint("priority ", priority, " for ", i)
		h.sameCancels(h.m.prioritise(i, priority), h.s.Prioritise(i, priority))
	case op < 44 && r.real.Ready:
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
		if v == Accepted {
			r.best = h.s.senders.all[r.real.sender].best
		}
		for _, o := range h.m.suppliers {
			if slices.Contains(got.Cancel[:], o.real) != slices.Contains(cancel, o.real) {
				h.fail("cancels %v, want %v", got.Cancel, cancel)
			}
		}
	case op < 80:
		some := h.rng.IntN(3)
		h.went = fmt.Sprint(r.real.Origin, " releases requests")
		h.s.Release(r.real, func(id Block) bool { return (int(id.Index)+int(id.Piece))%3 >= some })
		h.m.release(r, func(id Block) bool { return (int(id.Index)+int(id.Piece))%3 >= some })
	case op < 81:
		h.went = fmt.Sprint(r.real.Origin, " yields")
		priority, all := uint8(1+h.rng.IntN(2)), h.rng.IntN(2) == 0
		h.sameCancels(h.m.yield(r, priority, all), h.s.yield(r.real, priority, all))
	case op < 82:
		h.rush(p)
	case op < 90:
		h.character(r, i)
	case op < 91:
		h.went = fmt.Sprint(r.real.Origin, " is a liar")
		want := h.m.disown(r)
		got := h.s.Disown(func(origin any) bool { return origin == r.real.Origin })
		slices.SortFunc(got, func(a, b Block) int { return cmp.Or(cmp.Compare(a.Piece, b.Piece), cmp.Compare(a.Index, b.Index)) })
		if !slices.Equal(want, got) {
			h.fail("dropped %v, want %v", got, want)
		}
		r.liar = h.s.senders.find(r.real.Origin) >= 0 // the picker does not record suppliers that sent nothing
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

// rush rushes a piece, and checks that the plan is valid and uses all helpers with room.
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
			h.fail("%v is asked for %v", r.real.Origin, e.Block)
		case !r.real.Ready || !r.may(p) || r.snubbed:
			h.fail("%v cannot be asked for %v", r.real.Origin, e.Block)
		case p.parole && (len(b.owners) > 0 || p.sole != nil && p.sole != r):
			h.fail("%v is asked for %v, which is on parole", r.real.Origin, e.Block)
		case len(b.owners) > 1:
			h.fail("%v is the third that is asked for %v", r.real.Origin, e.Block)
		}
		if p.parole {
			p.assign(r)
		}
		if len(r.queue) == 0 {
			r.heard = h.now
		}
		h.m.ask(r, e.Block)
		room[e.Supplier]--
		if room[e.Supplier] < 0 {
			h.fail("%v is asked for too many", r.real.Origin)
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
		if r.real.Ready && r.may(p) && !r.snubbed && room[r.real] > stays && slices.ContainsFunc(p.blocks, func(b modelBlock) bool { return b.free() }) {
			h.fail("%v could be asked for a free block", r.real.Origin)
		}
	}
}

// rushCancels checks the requests that are cancelled for a rushed piece: all with a lower priority to the suppliers that are
// asked for its blocks, and those before its blocks in other queues. If admit cut the plan short, the other suppliers of the plan
// are unknown.
func (h *history) rushCancels(p *modelPiece, cancel []Request, plan []Request, cut bool) {
	if cut {
		for _, c := range cancel {
			if h.m.pieces[c.Block.Piece].priority >= p.priority {
				h.fail("%v is cancelled to make room", c.Block)
			}
			k := slices.IndexFunc(h.m.suppliers, func(r *modelSupplier) bool { return r.real == c.Supplier })
			h.m.release(h.m.suppliers[k], func(id Block) bool { return id == c.Block })
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

// character changes a random property of a supplier.
func (h *history) character(r *modelSupplier, i int) {
	switch h.rng.IntN(6) {
	case 0:
		if r.choking = !r.choking; r.choking {
			h.choke(r)
		}
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
		h.went = fmt.Sprint(r.real.Origin, " snubbed: ", r.snubbed)
	case 4:
		r.real.Ready = h.rng.IntN(3) > 0
		h.went = fmt.Sprint(r.real.Origin, " ready: ", r.real.Ready)
	default:
		r.rate = []float64{0, 1e4, 1e5, 1e7}[h.rng.IntN(4)]
		r.rtt = time.Duration(h.rng.IntN(200)) * time.Millisecond
		r.shown = h.now
		h.went = fmt.Sprint(r.real.Origin, " has rate ", r.rate)
	}
	r.real.Choking, r.real.snubbed, r.real.pace.rate, r.real.pipe.rtt, r.real.pace.measured = r.choking, r.snubbed, r.rate, r.rtt, r.shown
	r.real.allowed = make(map[int32]struct{})
	for i := range r.allowed {
		r.real.allowed[int32(i)] = struct{}{}
	}
}

// choke has a supplier choke us.
func (h *history) choke(r *modelSupplier) {
	h.s.Choke(r.real)
	for _, p := range h.m.pieces {
		if p.started > 0 && p.sole == r && !r.allowed[p.index] {
			p.pause()
		}
	}
}

// finish passes or fails a piece that is complete, or passes one that is in doubt or found on disk.
func (h *history) finish(p *modelPiece) {
	switch {
	case p.complete() && h.rng.IntN(3) == 0:
		h.went = fmt.Sprint(p.index, " failed its hash")
		digests := make([]uint64, len(p.blocks))
		h.s.Failed(p.index, digests)
		p.failed()
	case p.complete(), p.doubted, p.waiting() && h.rng.IntN(4) == 0:
		h.went = fmt.Sprint(p.index, " is verified")
		p.passed()
		cancel, digests := h.m.withdrawAll(p), make([]uint64, len(p.blocks))
		p.had, p.doubted, p.spoiled, p.turns, p.lapses, p.stuck, p.started, p.sole, p.failures, p.accused = true, false, false, nil, nil, nil, 0, nil, 0, nil
		got, _ := h.s.Passed(p.index, digests)
		h.sameCancels(cancel, got)
	}
}

// After each of a million random events, the picker agrees with its model.
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

// If all suppliers call Next again and again at one moment, they end up with nothing to take: no two suppliers take the same
// blocks from each other in turn.
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
					if !r.real.Ready {
						continue
					}
					got, _ := h.s.Next(r.real, 6-len(r.real.queue), h.now, nil)
					want, _ := h.m.Next(r, 6-len(r.queue), h.now)
					if !slices.Equal(got, want) {
						h.fail("got %v, want %v", got, want)
					}
					moved = moved || len(got) > 0
					moves += len(got)
				}
				if moves > 2000 {
					h.fail("suppliers take blocks without end")
				}
			}
		}
	}
}
