package picker

import (
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/layout"
)

// victim finds the request that s should take over. Of all that are expected in more than twice the time that s
// needs, it is the one that is expected last. It returns the supplier that was asked and the request's place in its
// queue, or nil.
func (pk *Picker) victim(s *Supplier, now time.Time) (victim *Supplier, at int) {
	if s.snubbed {
		return nil, 0
	}
	mine := s.eta(len(s.queue), now)
	busy := !s.Runs && len(s.queue) > 0 && mine > stealAhead+2*s.pipe.rtt
	full := pk.intake.full(now)
	rationed := s.Runs && full || !s.Runs && !pk.hasRation()
	var latest, together time.Duration
	if rationed {
		together = pk.together(now)
	}
	for _, o := range pk.suppliers {
		pk.work++
		if o == s || len(o.queue) == 0 {
			continue
		}
		for k := len(o.queue) - 1; k >= 0; k-- {
			pk.work++
			eta, stuck := o.eta(k, now), o.stuck(o.queue[k].Piece)
			worth := stuck || !busy && eta > max(latest, 2*mine) && (!rationed || largeGain(o, eta-mine, together, full, now))
			if worth && pk.maySteal(s, o, k, now) && pk.mayReassign(s, o, k, now) {
				victim, at, latest = o, k, eta
				if stuck {
					return victim, at
				}
				worth = false // those before it are expected sooner
			}
			if !worth && !o.Choking { // what it does not send while choking may lie among what it does
				break
			}
		}
	}
	return victim, at
}

// Where all are fast and together fill our own link, each has much of what is left under way, and is soon rid of it,
// whatever its rate says. There every theft is waste. So a supplier does not steal before it runs out of work, and a theft
// that gains little takes from a ration. Neither holds for one that is asked for runs, which begin a request each; but
// while as much comes as we can take, it steals only what gains much.
const (
	stealAhead = 200 * time.Millisecond // a supplier with this much work and two round trips of it does not steal
	firstLoot  = 16                     // thefts of small gain that the ration begins with
	lootRatio  = 100                    // blocks received that add one theft to it
)

// largeGain reports whether a theft from o is outside the ration. It is if it gains a second, the supplier has been
// measured or silent for as long, and it gains twice the time in which all suppliers together send what they were asked
// for; and if o has sent nothing at all in a second. While the intake is full, what o sent may be waiting for us. So then
// a theft must gain far more, and be known to for longer.
func largeGain(o *Supplier, gain, together time.Duration, full bool, now time.Time) bool {
	silence := now.Sub(o.heard)
	if full {
		return gain >= max(5*time.Second, 8*together) && (o.pace.seconds >= 3 || silence >= 3*time.Second)
	}
	if o.pace.rate <= 0 && silence >= time.Second {
		return true
	}
	return gain >= max(time.Second, 2*together) && (o.pace.seconds >= 1 || silence >= time.Second)
}

// together is how long all suppliers take together for what they are asked for.
func (pk *Picker) together(now time.Time) time.Duration {
	blocks, rate := 0, 0.0
	for _, o := range pk.suppliers {
		blocks += len(o.queue)
		if !o.Choking && !o.snubbed {
			rate += o.pace.rate
		}
	}
	pk.work += int64(len(pk.suppliers))
	if rate <= 0 {
		return 0
	}
	return time.Duration(float64(blocks) * layout.BlockSize / rate * float64(time.Second))
}

// hasRation reports whether a theft that gains little is allowed.
func (pk *Picker) hasRation() bool { return pk.loot < firstLoot+pk.received/lootRatio }

// maySteal reports whether s may be asked for the block of the k-th request to o.
//
// If another is asked for it, too, s replaces the slower of the two, and must be sooner than both by the margin:
// two slow ones must not keep a block from a fast one that has nothing to do. Among suppliers that have not shown
// how fast they are none is sooner, or they would take the block from each other before any of them can send it. But
// one that was never asked gets a chance.
func (pk *Picker) maySteal(s, o *Supplier, k int, now time.Time) bool {
	id := o.queue[k].Block
	b := pk.block(pk.started[id.Piece], id.Index)
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
	if s.pace.rate <= 0 && o.pace.rate <= 0 && !o.stuck(id.Piece) && s.asked {
		return false
	}
	at := slices.IndexFunc(other.queue, func(q outstanding) bool { return q.Block == id })
	eta := other.eta(at, now)
	if !other.stuck(id.Piece) && eta <= 2*s.eta(len(s.queue), now) {
		return false // the other sends it soon enough
	}
	return o.stuck(id.Piece) || !other.stuck(id.Piece) && eta <= o.eta(k, now)
}

// mayReassign reports whether s may take over the piece of the k-th request to o, if it is on parole: then all of it
// starts again. That pays only if s has the whole piece sooner by the margin.
func (pk *Picker) mayReassign(s, o *Supplier, k int, now time.Time) bool {
	p := pk.started[o.queue[k].Piece]
	return !p.parole || o.stuck(p.piece) || pk.outdoes(s, o, p, k, now)
}
