package picker

import (
	"math"
	"slices"
	"time"
)

// A suspicion is kept of a piece that failed its hash, until it passes. Meanwhile the piece is on parole: all its
// blocks are asked of one supplier at a time. If it fails again, that supplier lied. If it passes, comparing its
// blocks with those of earlier attempts shows which suppliers lied before.
type suspicion struct {
	attempts []attempt
	records  map[any]record // of sole suppliers, by Supplier.Host
}

// An attempt is what the blocks of a piece were that failed its hash.
type attempt struct {
	senders []int32  // by block, as in block.sender
	digests []uint64 // by block
}

// maxAttempts is how many attempts at one piece are remembered.
const maxAttempts = 8

// A record says how suppliers of one host did as sole suppliers of a piece.
type record struct {
	turns  int // how often one of them was made the sole supplier
	lapses int // how often one let the piece wait, or had sent nothing when another took over
}

// Failed records that piece i is complete and does not have its hash. digests are of its blocks. liars are the
// origins that are shown to have sent a false block: one that sent the whole piece. The piece is fetched again.
func (pk *Picker) Failed(i int, digests []uint64) (liars []any) {
	p := pk.started[int32(i)]
	a := attempt{digests: digests}
	for _, b := range p.blocks {
		a.senders = append(a.senders, b.sender)
	}
	u := pk.spoiled[p.piece]
	if u == nil {
		u = &suspicion{records: make(map[any]record)}
		pk.spoiled[p.piece] = u
	}
	first := a.senders[0]
	alone := !slices.ContainsFunc(a.senders, func(n int32) bool { return n != first })
	if alone && first >= 0 {
		liars = []any{pk.senders[first]}
	} else {
		if len(u.attempts) == maxAttempts {
			u.attempts = u.attempts[1:]
		}
		u.attempts = append(u.attempts, a)
	}
	p.reset()
	pk.retire(p)
	return liars
}

// clear ends the suspicion against piece i, which has passed. digests are of its true blocks. It returns the origins
// that sent others.
func (pk *Picker) clear(i int, digests []uint64) (liars []any) {
	u := pk.spoiled[int32(i)]
	if u == nil {
		return nil
	}
	delete(pk.spoiled, int32(i))
	for _, a := range u.attempts {
		for k, sender := range a.senders {
			if sender >= 0 && a.digests[k] != digests[k] && !slices.Contains(liars, pk.senders[sender]) {
				liars = append(liars, pk.senders[sender])
			}
		}
	}
	return liars
}

// assign makes s the sole supplier of p, which is on parole.
func (pk *Picker) assign(p *startedPiece, s *Supplier) {
	if p.sole != s {
		p.sole = s
		records := pk.spoiled[p.piece].records
		r := records[s.Host]
		r.turns++
		records[s.Host] = r
	}
}

// endTurn leaves p without a sole supplier. If the one that it had was no use, that is recorded.
func (pk *Picker) endTurn(p *startedPiece) {
	if o := p.sole; o != nil && (o.stuck(p.piece) || p.left == len(p.blocks)) {
		records := pk.spoiled[p.piece].records
		r := records[o.Host]
		r.lapses++
		records[o.Host] = r
	}
	p.sole = nil
}

// endTurns takes all pieces on parole from s. What it sent of them proves nothing beside the blocks of another, so
// they start again.
func (pk *Picker) endTurns(s *Supplier) {
	for _, p := range pk.started {
		if p.sole == s {
			pk.restart(p)
		}
	}
}

// restart drops the blocks of a piece on parole and returns it to the heap, unless it is complete and being hashed.
func (pk *Picker) restart(p *startedPiece) {
	if p.left > 0 {
		p.reset()
		pk.retire(p)
	}
}

// due is the first piece on parole that s should have at once, or nil: its sole supplier has sent nothing of it yet,
// and is of a host that lapsed more often than that of s.
func (pk *Picker) due(s *Supplier) (first *startedPiece) {
	if s.snubbed {
		return nil
	}
	for i, u := range pk.spoiled {
		p := pk.started[i]
		if p == nil || p.sole == nil || p.sole == s || p.left < len(p.blocks) || first != nil && first.piece < i {
			continue
		}
		if s.may(i) && u.records[p.sole.Host].lapses > u.records[s.Host].lapses {
			first = p
		}
	}
	return first
}

// neglects reports whether o, the sole supplier of p, is asked for other pieces only, and s would be so much sooner
// that it should have p.
func (pk *Picker) neglects(o, s *Supplier, p *startedPiece, now time.Time) bool {
	return !o.IsAsked(int(p.piece)) && pk.outdoes(s, o, p, len(o.queue)-1, now)
}

// outdoes reports whether s would have all of p sooner, by a margin, than o, which has still to send k+1 blocks and
// those of p that are free.
//
// The margin doubles with each turn that the host of s has had: a fast supplier that chokes all the time must not
// keep a slow one from completing p. It is larger for a supplier of unknown rate, or many of these would pass p
// around.
func (pk *Picker) outdoes(s, o *Supplier, p *startedPiece, k int, now time.Time) bool {
	margin := 2 * math.Exp2(float64(pk.spoiled[p.piece].records[s.Host].turns))
	if s.pace.rate <= 0 {
		margin *= 4
	}
	return float64(o.eta(k+p.free, now)) > margin*float64(s.eta(len(s.queue)+len(p.blocks)-1, now))
}
