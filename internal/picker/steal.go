package picker

import (
	"math"
	"slices"
	"time"
)

// victim finds the request that s had best take over: of all owners, the one whose last block is
// expected latest, if s is expected in under half that time. It returns the owner and the place in
// its queue, or nil.
func (pk *Picker) victim(s *Supplier, now time.Time) (*Supplier, int) {
	if s.snubbed {
		return nil, 0
	}
	mine := s.eta(len(s.queue), now)
	var victim *Supplier
	var latest time.Duration
	at := 0
	for _, o := range pk.suppliers {
		if o == s || len(o.queue) == 0 {
			continue
		}
		for k := len(o.queue) - 1; k >= 0; k-- {
			eta, stuck := o.eta(k, now), o.stuck(o.queue[k].Piece)
			worth := stuck || eta > max(latest, 2*mine)
			if worth && pk.mayStealFrom(s, o, k, now) && pk.mayWrest(s, o, k, now) {
				victim, at, latest = o, k, eta
				if stuck {
					return victim, at
				}
				worth = false // nothing before it is
			}
			if !worth && !o.Choking { // else what it will not send may be among what it will
				break
			}
		}
	}
	return victim, at
}

// mayWrest tells whether s may take over o's k-th request with what that takes with it: a piece on
// parole begins anew with its thief. That pays only if the thief has the whole of it sooner by the
// same margin.
func (pk *Picker) mayWrest(s, o *Supplier, k int, now time.Time) bool {
	p := pk.started[o.queue[k].Piece]
	return !p.parole || o.stuck(p.piece) || pk.outdoes(s, o, p, k, now)
}

// outdoes tells whether s would have all of p sooner, by the margin, than o who has still to send k+1
// blocks beside those of p that it was not asked for. With each turn of somebody at s's address the margin
// doubles, so that one who is fast but chokes all the time cannot keep a slow one from ever finishing p. One
// of unknown rate is not expected as soon as one that has shown it: a crowd of such would pass p around.
func (pk *Picker) outdoes(s, o *Supplier, p *startedPiece, k int, now time.Time) bool {
	margin := 2 * math.Exp2(float64(pk.spoiled[p.piece].tried[s.Host].turns))
	if s.rate <= 0 {
		margin *= 4
	}
	return float64(o.eta(k+p.free, now)) > margin*float64(s.eta(len(s.queue)+len(p.blocks)-1, now))
}

// entrusted finds a piece on parole that somebody was given who has lapsed more often than s, and has sent
// nothing of it yet: s is tried first.
func (pk *Picker) entrusted(s *Supplier) (first *startedPiece) {
	if s.snubbed {
		return nil
	}
	for i, u := range pk.spoiled {
		p := pk.started[i]
		if p == nil || p.sole == nil || p.sole == s || p.left < len(p.blocks) || first != nil && first.piece < i {
			continue
		}
		if s.may(i) && u.tried[p.sole.Host].lapses > u.tried[s.Host].lapses {
			first = p
		}
	}
	return first
}

// neglects tells whether o, the sole sender of p, is so busy with other pieces that s had better take
// p over.
func (pk *Picker) neglects(o, s *Supplier, p *startedPiece, now time.Time) bool {
	return !o.IsAsked(int(p.piece)) && pk.outdoes(s, o, p, len(o.queue)-1, now)
}

// mayStealFrom tells whether s may be asked for what o's k-th request asks for. Where somebody else
// is asked for it, too, s takes the place of the slower of the two, and only if it is sooner than
// both by the margin: else two slow ones could keep a block from a fast one that has nothing to do.
// Of two that have not shown how fast they are, none is sooner: a crowd of such would take the block
// from each other before any could send it. But who has never been asked is given a chance.
func (pk *Picker) mayStealFrom(s, o *Supplier, k int, now time.Time) bool {
	id := o.queue[k].Block
	b := &pk.started[id.Piece].blocks[id.Index]
	if b.owner[0] == s || b.owner[1] == s || !s.may(id.Piece) {
		return false
	}
	other := b.owner[0]
	if other == o {
		other = b.owner[1]
	}
	if other == nil {
		return true
	}
	if s.rate <= 0 && o.rate <= 0 && !o.stuck(id.Piece) && s.asked {
		return false
	}
	at := slices.IndexFunc(other.queue, func(a outstanding) bool { return a.Block == id })
	eta := other.eta(at, now)
	if !other.stuck(id.Piece) && eta <= 2*s.eta(len(s.queue), now) {
		return false // it comes soon enough from there
	}
	return o.stuck(id.Piece) || !other.stuck(id.Piece) && eta <= o.eta(k, now)
}
