package torrent

import (
	"math"
	"slices"
	"time"
)

// victim finds the request that r had best take over: of all owners, the one whose last block is
// expected latest, if r is expected in under half that time. It returns the owner and the place in
// its queue, or nil.
func (s *scheduler) victim(r *remote, now time.Time) (*remote, int) {
	if r.snubbed {
		return nil, 0
	}
	mine := r.eta(len(r.queue), now)
	var victim *remote
	var latest time.Duration
	at := 0
	for _, o := range s.remotes {
		if o == r || len(o.queue) == 0 {
			continue
		}
		for k := len(o.queue) - 1; k >= 0; k-- {
			eta, stuck := o.eta(k, now), o.stuck(o.queue[k].piece)
			worth := stuck || eta > max(latest, 2*mine)
			if worth && s.mayStealFrom(r, o, k, now) && s.mayWrest(r, o, k, now) {
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

// mayWrest tells whether r may take over o's k-th request with what that takes with it: a piece on
// parole begins anew with its thief. That pays only if the thief has the whole of it sooner by the
// same margin.
func (s *scheduler) mayWrest(r, o *remote, k int, now time.Time) bool {
	p := s.started[o.queue[k].piece]
	return !p.parole || o.stuck(p.piece) || s.outdoes(r, o, p, k, now)
}

// outdoes tells whether r would have all of p sooner, by the margin, than o who has still to send k+1
// blocks beside those of p that it was not asked for. With each turn of somebody at r's address the margin
// doubles, so that one who is fast but chokes all the time cannot keep a slow one from ever finishing p. One
// of unknown rate is not expected as soon as one that has shown it: a crowd of such would pass p around.
func (s *scheduler) outdoes(r, o *remote, p *startedPiece, k int, now time.Time) bool {
	margin := 2 * math.Exp2(float64(s.spoiled[p.piece].tried[r.Host].turns))
	if r.rate <= 0 {
		margin *= 4
	}
	return float64(o.eta(k+p.free, now)) > margin*float64(r.eta(len(r.queue)+len(p.blocks)-1, now))
}

// entrusted finds a piece on parole that somebody was given who has lapsed more often than r, and has sent
// nothing of it yet: r is tried first.
func (s *scheduler) entrusted(r *remote) (first *startedPiece) {
	if r.snubbed {
		return nil
	}
	for i, u := range s.spoiled {
		p := s.started[i]
		if p == nil || p.sole == nil || p.sole == r || p.left < len(p.blocks) || first != nil && first.piece < i {
			continue
		}
		if r.may(i) && u.tried[p.sole.Host].lapses > u.tried[r.Host].lapses {
			first = p
		}
	}
	return first
}

// neglects tells whether o, the sole sender of p, is so busy with other pieces that r had better take
// p over.
func (s *scheduler) neglects(o, r *remote, p *startedPiece, now time.Time) bool {
	return !o.IsAsked(int(p.piece)) && s.outdoes(r, o, p, len(o.queue)-1, now)
}

// mayStealFrom tells whether r may be asked for what o's k-th request asks for. Where somebody else
// is asked for it, too, r takes the place of the slower of the two, and only if it is sooner than
// both by the margin: else two slow ones could keep a block from a fast one that has nothing to do.
// Of two that have not shown how fast they are, none is sooner: a crowd of such would take the block
// from each other before any could send it. But who has never been asked is given a chance.
func (s *scheduler) mayStealFrom(r, o *remote, k int, now time.Time) bool {
	id := o.queue[k].blockID
	b := &s.started[id.piece].blocks[id.index]
	if b.owner[0] == r || b.owner[1] == r || !r.may(id.piece) {
		return false
	}
	other := b.owner[0]
	if other == o {
		other = b.owner[1]
	}
	if other == nil {
		return true
	}
	if r.rate <= 0 && o.rate <= 0 && !o.stuck(id.piece) && r.asked {
		return false
	}
	at := slices.IndexFunc(other.queue, func(a ask) bool { return a.blockID == id })
	eta := other.eta(at, now)
	if !other.stuck(id.piece) && eta <= 2*r.eta(len(r.queue), now) {
		return false // it comes soon enough from there
	}
	return o.stuck(id.piece) || !other.stuck(id.piece) && eta <= o.eta(k, now)
}
