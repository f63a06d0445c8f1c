package picker

import (
	"math"
	"slices"
	"time"
)

// Strangers who come to spoil pieces could also keep them: each new one would have a turn at a piece on parole, and stall. So a
// supplier has its turn before others if its credit, the blocks that it sent in pieces that passed, is more than fairPart times
// theirs. It loses this precedence at a piece once it was stuck maxStuck times, until others have had otherTurns in vain, and so on: it may
// choke for half of the time, and they may be strangers without end. It has no credit while its rate is less than a fairPart of its best,
// or it could keep all pieces on parole by sending a block now and then.
const (
	fairPart   = 16
	fairTurn   = 8 // the part of what is lacking of a piece that makes a turn a fair one
	maxStuck   = 3
	otherTurns = 8
)

// A ranking is what one choice of blocks has found out about who comes first at pieces on parole, of which there may be thousands.
type ranking struct {
	known bool      // most is
	most  int       // see mostCredit
	first *Supplier // the last one found that outranks another; nil if there is none
}

// creditOf returns the credit of s.
func (pk *Picker) creditOf(s *Supplier) int {
	if s.sender == noSender || fairPart*s.pace.rate < pk.senders.all[s.sender].best {
		return 0
	}
	return pk.senders.all[s.sender].given
}

// mostCredit returns the highest credit of a peer.
func (pk *Picker) mostCredit() (most int) {
	if pk.ranking.known {
		return pk.ranking.most
	}
	pk.work += int64(len(pk.suppliers)) / suppliersPerStep
	for _, s := range pk.suppliers {
		if !s.Runs {
			most = max(most, pk.creditOf(s))
		}
	}
	pk.ranking.known, pk.ranking.most = true, most
	return most
}

// outranked reports whether s must leave p, a piece on parole, to another supplier that can send it.
func (pk *Picker) outranked(s *Supplier, p *startedPiece) bool {
	if !p.parole {
		return false
	}
	if pk.mostCredit() <= fairPart*pk.creditOf(s) {
		return false
	}
	outranks := func(o *Supplier) bool {
		return pk.precedes(o, s, p) && o.Ready && !o.snubbed && !o.Runs && o.may(p.piece) && !pk.barred(o, p)
	}
	if o := pk.ranking.first; o != nil && outranks(o) {
		return true
	}
	pk.work += int64(len(pk.suppliers)) / suppliersPerStep
	at := slices.IndexFunc(pk.suppliers, outranks)
	if at >= 0 {
		pk.ranking.first = pk.suppliers[at]
	}
	return at >= 0
}

// trusts reports whether s has so much more credit than o that it is trusted over o.
func (pk *Picker) trusts(s, o *Supplier) bool { return pk.creditOf(s) > fairPart*pk.creditOf(o) }

// precedes reports whether s has its turn at p, a piece on parole, before o, whose credit is so much less.
func (pk *Picker) precedes(s, o *Supplier, p *startedPiece) bool {
	u := pk.spoiled[p.piece]
	r := u.records[s.Host]
	return pk.trusts(s, o) && r.stuck < maxStuck+(u.turns-r.turns)/otherTurns
}

// deposes reports whether s, which is about to send p in any case, takes it from its sole supplier, because it precedes that one.
func (pk *Picker) deposes(s *Supplier, p *startedPiece) bool {
	return p.sole != nil && p.sole != s && p.left > 0 && pk.precedes(s, p.sole, p)
}

// due returns the first piece on parole that s should take over at once, or nil. The sole supplier of such a piece has sent
// nothing of it yet, and s precedes it, or its host has more lapses than that of s, and neither it nor another precedes s. So a web
// seed, which no peer has to wait for, takes over what strangers have. While s still has free blocks of such a piece it gets no other: a
// choke could cost it all of them.
func (pk *Picker) due(s *Supplier) (first *startedPiece) {
	if s.snubbed || len(pk.spoiled) == 0 {
		return nil
	}
	pk.work += int64(len(pk.spoiled))
	for i, u := range pk.spoiled {
		p := pk.started[i]
		if p == nil || p.sole == nil || !s.may(i) {
			continue
		}
		if p.sole.left && p.sole.Origin == s.Origin {
			p.sole, s.sender = s, p.sole.sender // it has connected again
		}
		if p.sole == s && p.open {
			return nil
		}
		if p.sole == s || p.left < p.lacks() || first != nil && first.piece < i {
			continue
		}
		lapsed := u.records[p.sole.Host].lapses > u.records[s.Host].lapses
		if pk.precedes(s, p.sole, p) || lapsed && !pk.precedes(p.sole, s, p) && !pk.outranked(s, p) {
			first = p
		}
	}
	return first
}

// neglects reports whether no request for p is outstanding to o, its sole supplier, and s would have p so much sooner that it
// should take over.
func (pk *Picker) neglects(o, s *Supplier, p *startedPiece, now time.Time) bool {
	return !p.isAsked() && pk.outdoes(s, o, p, len(o.queue)-1, now)
}

// outdoes reports whether s would have sent all of p sooner, by a margin, than o would have sent its first k+1 outstanding blocks
// and the free blocks of p.
//
// The margin doubles with each turn that the host of s has had, unless s precedes o: a fast supplier that chokes again and again must not
// keep a slow one from completing p. Each otherTurns of others take one from these turns, or slow strangers without end would have p in
// turn. The margin is larger if the rate of s is unknown, or many such suppliers would pass p around.
func (pk *Picker) outdoes(s, o *Supplier, p *startedPiece, k int, now time.Time) bool {
	if o.stuck(p.piece) && pk.trusts(s, o) {
		return true // p does not wait for o
	}
	margin := 2.
	if !pk.precedes(s, o, p) {
		u := pk.spoiled[p.piece]
		turns := u.records[s.Host].turns
		margin = math.Ldexp(margin, max(0, turns-(u.turns-turns)/otherTurns))
	}
	if s.pace.rate <= 0 {
		margin *= 4
	}
	return float64(o.eta(k+p.free, now)) > margin*float64(s.eta(len(s.queue)+p.lacks()-1, now))
}
