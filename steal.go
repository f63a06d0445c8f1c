package torrent

import (
	"time"
)

// victim finds the request that r had best take over: of all owners, the one whose last block is
// expected latest, if r is expected in under half that time. It returns the owner and the place in
// its queue, or nil.
func (s *scheduler) victim(r *remote, now time.Time) (*remote, int) {
	if s.single == 0 || r.snubbed {
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
		if !o.idle() && o.eta(len(o.queue)-1, now) <= max(latest, 2*mine) {
			continue // not even its last block is worth it
		}
		for k := len(o.queue) - 1; k >= 0; k-- {
			eta := o.eta(k, now)
			if !o.idle() && eta <= max(latest, 2*mine) {
				break
			}
			if s.mayStealFrom(r, o.queue[k].blockID) && s.mayWrest(r, o, k, now) {
				victim, at, latest = o, k, eta
				if o.idle() {
					return victim, at
				}
				break
			}
		}
	}
	return victim, at
}

// mayWrest tells whether r may take over o's k-th request with what that takes with it: a piece on
// parole begins anew with its thief. That pays only if the thief has the whole of it sooner by the
// same margin; else two that know nothing of each other's rate would take it in turns for ever. Each
// time it has changed hands the margin doubles, so that one who is fast but chokes all the time
// cannot keep a slow one from ever finishing it.
func (s *scheduler) mayWrest(r, o *remote, k int, now time.Time) bool {
	p := s.started[o.queue[k].piece]
	if !p.parole || o.idle() {
		return true
	}
	margin := time.Duration(2) << min(s.spoiled[p.piece].moves, 10)
	return o.eta(k+p.free, now) > margin*r.eta(len(r.queue)+len(p.blocks)-1, now)
}

// mayStealFrom tells whether r could be the second to be asked for a block that is under way.
func (s *scheduler) mayStealFrom(r *remote, id blockID) bool {
	p := s.started[id.piece]
	b := &p.blocks[id.index]
	if b.copies() != 1 || b.owner[0] == r || b.owner[1] == r || !r.holds(int(id.piece)) {
		return false
	}
	return !r.choking || r.allows(id.piece)
}
