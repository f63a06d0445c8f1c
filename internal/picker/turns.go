package picker

import "iter"

// turnsOf yields the pieces on parole of which s is the sole supplier.
func (pk *Picker) turnsOf(s *Supplier) iter.Seq[*startedPiece] {
	return func(yield func(*startedPiece) bool) {
		for i := range pk.spoiled { // far fewer than the started pieces
			if p := pk.started[i]; p != nil && p.sole == s && !yield(p) {
				return
			}
		}
	}
}

// assign makes s the sole supplier of p, a piece on parole.
func (pk *Picker) assign(p *startedPiece, s *Supplier) {
	if p.sole != s {
		p.sole, p.paused, p.waits = s, 0, false
		pk.spoiled[p.piece].turns++
		pk.note(p.piece, s.Host, func(r *record) { r.turns++ })
	}
}

// endTurn removes the sole supplier of p. If requests to it may never be answered, or it has sent nothing, a lapse is recorded.
func (pk *Picker) endTurn(p *startedPiece) {
	if o := p.sole; o != nil && (o.stuck(p.piece) && !p.waits || p.left == p.lacks()) {
		pk.note(p.piece, o.Host, func(r *record) {
			r.lapses++
			if o.stuck(p.piece) && !o.snubbed {
				r.stuck++
			}
		})
	}
	p.sole = nil
}

// stuckAtTurns records that s was snubbed, for all pieces of which it is the sole supplier. It keeps those that no other supplier
// takes over, and may send a block soon.
func (pk *Picker) stuckAtTurns(s *Supplier) {
	pk.work += int64(len(pk.spoiled))
	for p := range pk.turnsOf(s) {
		p.waits = p.waits && s.Choking
		pk.note(p.piece, s.Host, func(r *record) { r.stuck++ })
	}
}

// pause records that the sole supplier of p chokes or leaves. It may do so again and again before it has sent all of p. So p waits for it,
// until another outdoes it, if it has sent a fair part of p since the last time. One that sends a block each time would keep p for long.
func (p *startedPiece) pause() {
	sent := p.lacks() - p.left
	p.waits = sent > p.paused && fairTurn*(sent-p.paused) >= p.lacks()
	p.paused = sent
}

// Choke records that s chokes us.
func (pk *Picker) Choke(s *Supplier) {
	if s.Choking {
		return // its pieces are paused already
	}
	s.Choking = true
	pk.work += int64(len(pk.spoiled))
	for p := range pk.turnsOf(s) {
		if !s.AllowedFast(int(p.piece)) {
			p.pause()
		}
	}
}

// endTurns ends the turns of s, which leaves. A piece that waits for s, or of which s sent blocks and has credit, keeps these until another
// takes it over: s may connect again, and send the rest. The others start again, because blocks of s together with those of another supplier
// prove nothing. A piece for which s chokes us has been paused already.
func (pk *Picker) endTurns(s *Supplier) {
	var left *Supplier
	liar := s.sender != noSender && pk.senders.all[s.sender].liar
	for p := range pk.turnsOf(s) {
		if p.left == 0 {
			continue
		}
		if !s.Choking || s.AllowedFast(int(p.piece)) {
			p.pause()
		}
		if p.left == p.lacks() || !p.waits && pk.creditOf(s) == 0 || liar {
			pk.restart(p)
			continue
		}
		if left == nil {
			left = &Supplier{Origin: s.Origin, Host: s.Host, left: true, sender: s.sender, all: true, heard: s.heard, pace: s.pace}
		}
		p.sole = left
	}
}

// restart drops the blocks that the sole supplier of p sent, and returns p to the heap if no block is left. It does nothing if p
// is complete and being hashed.
func (pk *Picker) restart(p *startedPiece) {
	if p.left == 0 {
		return
	}
	for k, b := range p.blocks.known {
		if b.here() && !b.kept {
			p.drop(k, b)
		}
	}
	pk.endTurn(p)
	pk.reopen(p)
	pk.retire(p)
}
