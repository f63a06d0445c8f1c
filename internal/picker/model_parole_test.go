package picker

import "slices"

// kept returns the number of blocks kept from a failed attempt.
func (p *modelPiece) kept() (n int) {
	for _, b := range p.blocks {
		n += one(b.kept)
	}
	return n
}

// lacks returns how many blocks are not kept.
func (p *modelPiece) lacks() int { return len(p.blocks) - p.kept() }

// sent returns how many blocks the sole supplier has sent.
func (p *modelPiece) sent() (n int) {
	for _, b := range p.blocks {
		n += one(b.sender != nil && !b.kept)
	}
	return n
}

// pause records that the sole supplier chokes or leaves. The piece waits for it if it has sent a fair part since the last time.
func (p *modelPiece) pause() {
	since := p.sent() - p.paused
	p.waits = since > 0 && fairTurn*since >= p.lacks()
	p.paused = p.sent()
}

// leave has the piece wait for its sole supplier, which has left and may connect again, and reports whether it does.
func (p *modelPiece) leave(r *modelSupplier) bool {
	if !r.choking || r.allowed[p.index] { // otherwise the choke has paused it
		p.pause()
	}
	if p.sent() == 0 || !p.waits && r.credit() == 0 || r.liar {
		return false
	}
	all := slices.Repeat([]bool{true}, len(r.has))
	p.sole = &modelSupplier{real: &Supplier{Host: r.real.Host}, was: r, has: all, rate: r.rate, shown: r.shown, heard: r.heard}
	return true
}

// endTurn removes the sole supplier, and counts a lapse if it was stuck in vain or sent nothing.
func (p *modelPiece) endTurn() {
	if o := p.sole; o != nil && (o.stuck(p) && !p.waits || !slices.ContainsFunc(p.blocks, func(b modelBlock) bool { return b.sender != nil && !b.kept })) {
		p.lapses[o.real.Host]++
		p.stuck[o.real.Host] += one(o.stuck(p) && !o.snubbed)
	}
	p.sole = nil
}

// dropTurn drops the blocks that the sole supplier sent.
func (p *modelPiece) dropTurn() {
	for k := range p.blocks {
		if !p.blocks[k].kept {
			p.blocks[k] = modelBlock{}
		}
	}
	p.endTurn()
}

// barred reports whether r must not become the sole supplier, because its own blocks are to be replaced and another can do that.
func (m *modelPicker) barred(r *modelSupplier, p *modelPiece) bool {
	return p.started > 0 && p.kept() > 0 && p.sole == nil && slices.Contains(p.accused, r) &&
		slices.ContainsFunc(m.suppliers, func(o *modelSupplier) bool {
			return o.real.Ready && !o.snubbed && o.may(p) && !slices.Contains(p.accused, o)
		})
}

// failed drops the blocks under suspicion of a piece that failed its hash.
func (p *modelPiece) failed() {
	if p.lapses == nil {
		p.turns, p.lapses, p.stuck = map[any]int{}, map[any]int{}, map[any]int{}
	}
	if p.sole != nil {
		p.lapses[p.sole.real.Host]++
		p.stuck[p.sole.real.Host] += one(p.sole.stuck(p) && !p.sole.snubbed)
	}
	p.spoiled, p.parole, p.sole = true, true, nil
	share := map[*modelSupplier]int{}
	var senders, liars []*modelSupplier
	for _, b := range p.blocks {
		if share[b.sender]++; share[b.sender] == 1 {
			senders = append(senders, b.sender)
		}
	}
	slices.SortStableFunc(senders, func(a, b *modelSupplier) int { return share[a] - share[b] })
	for _, r := range senders {
		if r.liar {
			liars = append(liars, r)
		}
	}
	switch alone := len(senders) == 1 && senders[0] != storedEarlier; {
	case alone:
		p.accused = nil
	case len(liars) > 0:
		p.accused = liars
	default:
		p.failures++
		few, sum := 0, 0
		for _, r := range senders[:len(senders)-1] {
			if sum += share[r]; few == 0 || sum <= len(p.blocks)/8 {
				few++
			}
		}
		p.accused = senders[:max(1, map[int]int{1: few, 2: len(senders) - 1}[p.failures])]
		if p.failures > 2 {
			p.accused = p.suspects(senders)
		}
	}
	for k := range p.blocks {
		if b := &p.blocks[k]; len(senders) == 1 || slices.Contains(p.accused, b.sender) {
			*b = modelBlock{}
		}
	}
	p.keep()
	p.retire()
}

// keep keeps the blocks that have arrived, and reports whether there are more of them than before.
func (p *modelPiece) keep() bool {
	before := p.kept()
	for k := range p.blocks {
		p.blocks[k].kept = p.blocks[k].sender != nil
	}
	return p.kept() > before
}

// suspects returns the senders without the one that has far more credit than the others, if there is one and it was not believed too often.
func (p *modelPiece) suspects(senders []*modelSupplier) (out []*modelSupplier) {
	for _, r := range senders {
		dominates := r.given > fairPart && p.failures <= maxBelieved
		for _, o := range senders {
			dominates = dominates && (o == r || r.given > fairPart*max(1, o.given))
		}
		if !dominates {
			out = append(out, r)
		}
	}
	return out
}

// disown drops the blocks that a liar sent.
func (m *modelPicker) disown(r *modelSupplier) (dropped []Block) {
	r.liar = true
	for _, p := range m.pieces {
		if p.started == 0 || p.complete() {
			continue
		}
		for k, b := range p.blocks {
			if b.sender != nil && b.sender.liar {
				p.blocks[k] = modelBlock{}
				dropped = append(dropped, Block{int32(p.index), int32(k)})
			}
		}
		p.waits = p.waits && p.sent() > 0
		p.retire()
	}
	return dropped
}

// credit returns how many blocks r sent in pieces that passed, or 0 while it is fairPart times slower than it was.
func (r *modelSupplier) credit() int {
	if r.was != nil {
		return one(r.was.best <= fairPart*r.rate) * r.was.given
	}
	if r.best > fairPart*r.rate {
		return 0
	}
	return r.given
}

// outranks reports whether r has its turn before o, because it has sent so much more.
func (r *modelSupplier) outranks(o *modelSupplier, p *modelPiece) bool {
	return r.credit() > fairPart*o.credit() && p.stuck[r.real.Host] < maxStuck
}

// outranked reports whether r must not become the sole supplier, because another can do that which outranks it.
func (m *modelPicker) outranked(r *modelSupplier, p *modelPiece) bool {
	return p.started > 0 && p.parole && slices.ContainsFunc(m.suppliers, func(o *modelSupplier) bool {
		return o.outranks(r, p) && o.real.Ready && !o.snubbed && o.may(p) && !m.barred(o, p)
	})
}

// passed counts the blocks of a complete piece for their senders.
func (p *modelPiece) passed() {
	if p.complete() {
		for _, b := range p.blocks {
			b.sender.given += one(b.sender != storedEarlier)
		}
	}
}
