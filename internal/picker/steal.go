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
	rationed := !pk.hasRation()
	if s.Runs {
		rationed = pk.full(now)
	}
	rests := now.Before(s.looksFrom)
	before := pk.work
	var latest time.Duration
	var view outlook
	if rationed {
		view = pk.outlook(now)
	}
	for _, o := range pk.suppliers {
		pk.work++
		if o == s || len(o.queue) == 0 {
			continue
		}
		for k := len(o.queue) - 1; k >= 0; k-- {
			pk.work++
			eta, stuck := o.eta(k, now), o.stuck(o.queue[k].Piece)
			worth := stuck || !busy && eta > max(latest, 2*mine) && (!rationed || s.Runs && o.Runs || view.large(s, o, eta-mine))
			if worth && pk.maySteal(s, o, k, now) && pk.mayReassign(s, o, k, now) {
				victim, at, latest = o, k, eta
				if stuck {
					return victim, at
				}
				worth = false // those before it are expected sooner
			}
			if rests || !worth && !o.Choking { // what it does not send while choking may lie among what it does
				break
			}
		}
	}
	if looks := pk.work - before; victim == nil && looks > fewLooks {
		s.looksFrom = now.Add(time.Duration(looks) * lookPause)
	}
	return victim, at
}

// Slow suppliers and those that choke may keep thousands of requests, and many others may look through them in vain, again whenever a
// block comes free somewhere. So one that has looked at more than a few looks at the last of each alone for a while, which grows with
// their number.
const (
	fewLooks        = 1000 // and steps that they take
	lookPause       = 50 * time.Microsecond
	requestsPerStep = 16 // of a queue in which one is sought
)

// Where all are fast and together fill our own link, each has much of what is left under way, and is soon rid of it,
// whatever its rate says. There every theft is waste. So a supplier does not steal before it runs out of work, and a theft
// that gains little takes from a ration. Neither holds for one that is asked for runs, which begin a request each; but
// while the intake is full, it steals from peers only what gains much. Of a web seed's streams a few have long runs each, and where one
// is done the others' are shared.
const (
	stealAhead = 200 * time.Millisecond // a supplier with this much work and two round trips of it does not steal
	firstLoot  = 16                     // thefts of small gain that the ration begins with
	muchTime   = 10 * time.Second       // that a theft gains is much, however slow all are together
	lootRatio  = 100                    // blocks received that add one theft to it, or half of one while much comes twice
	farSlower  = 8                      // how much slower than the thief a supplier must be while the intake is full,
	crowd      = 64                     // more so among more suppliers than these, of which some seem slower by chance
)

// An outlook is what decides which thefts gain much.
type outlook struct {
	now      time.Time
	together time.Duration // in which all suppliers send what they were asked for
	full     bool          // the intake is full
	slower   float64       // how much slower a supplier must be then
	wasteful bool          // much came twice
}

func (pk *Picker) outlook(now time.Time) outlook {
	slower := farSlower * max(1, float64(len(pk.suppliers))/crowd)
	return outlook{now, pk.together(now), pk.full(now), slower, pk.wasteful()}
}

// large reports whether a theft by s from o is outside the ration. It is if it gains a second, o has been measured or
// silent for as long, and it gains twice the time in which all suppliers together send what they were asked for, or ten
// seconds, for where all are slow that is long; and if o has sent nothing at all in a second.
//
// While the intake is full, what o sent may be waiting for us. So o must be silent for longer or far slower than s, and
// little may have come twice so far.
func (v outlook) large(s, o *Supplier, gain time.Duration) bool {
	silence := v.now.Sub(o.heard)
	if v.full {
		slow := o.pace.rate > 0 && s.pace.rate >= v.slower*o.pace.rate
		if v.wasteful || !slow && silence < 2*time.Second {
			return false
		}
	} else if o.pace.rate <= 0 && silence >= time.Second {
		return true
	}
	return gain >= max(time.Second, min(2*v.together, muchTime)) && (o.pace.seconds >= 1 || silence >= time.Second)
}

// full reports whether the intake is full. If what was stolen in a lull came twice, that was no sign of room.
func (pk *Picker) full(now time.Time) bool {
	if pk.wasteful() {
		pk.intake.slack = false
	}
	return pk.intake.full(now)
}

// wasteful reports whether a quarter of the ration or more came twice.
func (pk *Picker) wasteful() bool {
	return 4*(pk.intake.total-pk.received) > firstLoot+pk.received/lootRatio
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
func (pk *Picker) hasRation() bool {
	grown := pk.received / lootRatio
	if pk.wasteful() {
		grown /= 2
	}
	return pk.loot < firstLoot+grown
}

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
	pk.work += int64(at / requestsPerStep)
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
