package torrent

import (
	"cmp"
	"slices"
	"time"
)

// An errand is a block that a remote had best be asked for now, before anything less wanted.
type errand struct {
	remote *remote
	block  blockID
}

// Rush has piece i here soonest, by whoever can help, before what is less wanted. Each free block of it is asked
// of the remote from which it may be expected first, once that remote has put off what is less wanted. A block
// under way is asked of a second one where that has it in under half the time.
//
// admit is told what is to be cancelled for that, and is asked how many of so many requests may go out. Rush
// returns these.
func (s *scheduler) Rush(i int, now time.Time, admit func(cancel []cancelled, n int) int) []errand {
	plan := s.plan(i, now)
	p := s.started[int32(i)]
	if p == nil {
		return nil
	}
	var cancel []cancelled
	for _, r := range s.remotes {
		runs := slices.ContainsFunc(plan, func(e errand) bool { return e.remote == r })
		if runs || r.IsAsked(i) {
			cancel = append(cancel, s.yield(r, p.priority, runs)...)
		}
	}
	plan = plan[:admit(cancel, len(plan))]
	for _, e := range plan {
		s.run(e, now)
	}
	s.retire(p)
	return plan
}

// plan says who is to be asked for what so as to have piece i soonest. Nothing is changed yet, but that the piece
// is started.
func (s *scheduler) plan(i int, now time.Time) (plan []errand) {
	if !s.need.Has(i) {
		return nil
	}
	p := s.started[int32(i)]
	priority := s.heap.priority[i]
	var able []*runner
	var late []*lateBlock
	for _, r := range s.remotes {
		n := 0 // requests of r that stay
		for _, a := range r.queue {
			if s.started[a.piece].priority < priority {
				continue
			}
			if p != nil && a.piece == p.piece && !p.parole && p.blocks[a.index].copies() == 1 {
				late = append(late, &lateBlock{r, a.blockID, r.eta(n, now)})
			}
			n++
		}
		if r.Ready && r.may(int32(i)) && !r.snubbed && n < r.pipe.depth {
			able = append(able, &runner{r, n, r.eta(n, now)})
		}
	}
	if len(able) == 0 {
		return nil
	}
	if p == nil {
		p = s.start(i)
	}
	if p.parole {
		able = soleRunner(p, able, now)
	}
	for k := p.cursor; k < len(p.blocks) && p.free > len(plan); k++ {
		if !p.blocks[k].free() {
			continue
		}
		first := soonest(able, nil)
		if first == nil {
			return plan
		}
		plan = append(plan, first.send(blockID{p.piece, int32(k)}, now))
	}
	slices.SortFunc(late, func(a, b *lateBlock) int { return cmp.Compare(b.eta, a.eta) })
	for _, l := range late {
		thief := soonest(able, l.owner)
		if thief != nil && (l.owner.snubbed || 2*thief.eta < l.eta) {
			plan = append(plan, thief.send(l.blockID, now))
		}
	}
	return plan
}

// soleRunner is who is to send all that lacks of a piece on parole: who began, or who would have it first.
func soleRunner(p *startedPiece, able []*runner, now time.Time) []*runner {
	able = slices.DeleteFunc(able, func(r *runner) bool { return p.sole != nil && p.sole != r.remote })
	if len(able) == 0 {
		return nil
	}
	return []*runner{slices.MinFunc(able, func(a, b *runner) int {
		return cmp.Compare(a.remote.eta(a.queued+p.free, now), b.remote.eta(b.queued+p.free, now))
	})}
}

// A runner is a remote that can be sent for blocks.
type runner struct {
	remote *remote
	queued int           // requests before the next one
	eta    time.Duration // of the next one
}

func (r *runner) send(id blockID, now time.Time) errand {
	r.queued++
	r.eta = r.remote.eta(r.queued, now)
	return errand{r.remote, id}
}

// soonest is the runner other than one remote with the least eta, or nil.
func soonest(able []*runner, other *remote) (best *runner) {
	for _, r := range able {
		if r.remote != other && r.queued < r.remote.pipe.depth && (best == nil || r.eta < best.eta) {
			best = r
		}
	}
	return best
}

// lateBlock is a block that one remote alone was asked for.
type lateBlock struct {
	owner *remote
	blockID
	eta time.Duration
}

// run takes note that a remote is asked for a block as planned.
func (s *scheduler) run(e errand, now time.Time) {
	e.remote.expect(now)
	p := s.started[e.block.piece]
	b := &p.blocks[e.block.index]
	if b.free() {
		p.free--
		if p.parole {
			s.entrust(p, e.remote)
		}
	} else {
		s.steals++
	}
	s.claim(b, e.remote, e.block, now)
	if p.free == 0 {
		s.close(p)
	}
}

// yield releases what r was asked for of pieces less wanted than priority: all of it, or only what stands before
// the last request that is not less wanted.
func (s *scheduler) yield(r *remote, priority uint8, all bool) []cancelled {
	end := len(r.queue)
	for !all && end > 0 && s.started[r.queue[end-1].piece].priority < priority {
		end--
	}
	k := 0
	return cancels(r, s.Release(r, func(id blockID) bool {
		k++
		return k <= end && s.started[id.piece].priority < priority
	}))
}
