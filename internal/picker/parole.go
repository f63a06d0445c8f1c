package picker

import (
	"slices"
)

// A suspicion is kept of a piece that failed its hash, until it passes: who sent which block, and
// what the block was. From then on the piece is fetched from one peer at a time (on parole), so
// that a failure proves a liar, and a success shows by comparison who lied before.
type suspicion struct {
	attempts []attempt
	tried    map[any]trial // sole senders
}

// trial is what has become of the sole senders of one host.
type trial struct {
	turns  int // how often they began the piece
	lapses int // how often they let it wait, or had sent nothing of it when somebody else took over
}

type attempt struct {
	senders []int32  // by block
	digests []uint64 // by block
}

// maxAttempts bounds the memory of a suspicion: what failed before that is forgotten.
const maxAttempts = 8

// Failed notes that piece i, whole, did not have its hash. digests are of its blocks. It returns the
// origins proven to have lied: the one that sent all of it, if it was one. The piece begins anew.
func (pk *Picker) Failed(i int, digests []uint64) (liars []any) {
	p := pk.started[int32(i)]
	a := attempt{digests: digests}
	for _, b := range p.blocks {
		a.senders = append(a.senders, b.sender)
	}
	u := pk.spoiled[p.piece]
	if u == nil {
		u = &suspicion{tried: make(map[any]trial)}
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

// entrust makes s the sole sender of p, which is on parole.
func (pk *Picker) entrust(p *startedPiece, s *Supplier) {
	if p.sole != s {
		p.sole = s
		tried, at := pk.spoiled[p.piece].tried, s.Host
		t := tried[at]
		t.turns++
		tried[at] = t
	}
}

// lapse ends the time of p's sole sender, and counts it if that came to nothing.
func (pk *Picker) lapse(p *startedPiece) {
	if o := p.sole; o != nil && (o.stuck(p.piece) || p.left == len(p.blocks)) {
		tried, at := pk.spoiled[p.piece].tried, o.Host
		t := tried[at]
		t.lapses++
		tried[at] = t
	}
	p.sole = nil
}

// clear ends the suspicion that piece i is under, now that it passed its hash. digests are of its true blocks;
// who sent another is returned.
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
