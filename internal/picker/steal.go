package picker

import (
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/layout"
)

// victim finds the request that s should take over: of all that are expected to take more than twice as long as s would, the one
// that is expected last. It returns the supplier that the request was sent to, or nil, and the index of the request in its queue.
func (pk *Picker) victim(s *Supplier, now time.Time) (victim *Supplier, at int) {
	if s.snubbed {
		return nil, 0
	}
	mine := s.eta(len(s.queue), now)
	busy := !s.Runs && len(s.queue) > 0 && mine > stealAhead+2*s.pipe.rtt
	rationed := busy || !pk.hasRation()
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
			worth := stuck || eta > max(latest, 2*mine) && (!rationed || s.Runs && o.Runs || view.large(s, o, eta-mine)) &&
				(!busy || s.pace.rate >= muchSlower*o.pace.rate)
			if worth && pk.maySteal(s, o, k, now) && pk.mayReassign(s, o, k, now) {
				victim, at, latest = o, k, eta
				if stuck {
					return victim, at
				}
				worth = false // earlier requests are expected sooner
			}
			if rests || !worth && !o.Choking { // requests that a choking supplier does not answer may be anywhere in its queue
				break
			}
		}
	}
	if pause := pauseAfter(pk.work - before); victim == nil && pause > 0 {
		s.looksFrom = now.Add(pause)
	}
	return victim, at
}

// Slow or choking suppliers may have thousands of outstanding requests, and many other suppliers may search these in vain
// whenever a block becomes free. After a supplier has searched in vain for more than fewLooks steps, it looks only at the last
// request of each other supplier for a while: lookPause for each step. At the end of a fast download a search takes some thousands
// of steps, and a long pause would delay the last blocks. So the pause for each step is at most as many nanoseconds as there were steps.
const (
	fewLooks        = 1000 // steps
	lookPause       = 50 * time.Microsecond
	requestsPerStep = 16 // requests of a queue that one step of a search covers
)

// pauseAfter returns how long a supplier for which so many steps were searched in vain is not searched for again.
func pauseAfter(steps int64) time.Duration {
	if steps <= fewLooks {
		return 0
	}
	return min(time.Duration(steps), lookPause) * time.Duration(steps)
}

// restFromWalk records that so many steps were taken in vain to find an open piece that s can be asked for. There may be thousands of
// them that only strangers have, or that are on parole with others.
func (s *Supplier) restFromWalk(steps int64, now time.Time) { s.walksFrom = now.Add(pauseAfter(steps)) }

// If all suppliers are fast and together fill our own link, each of them has many of the remaining requests, and will answer them
// soon, whatever its measured rate is. Every theft is waste then. So thefts that gain little are rationed, and not made before the
// supplier runs out of work. One that gains much is, if it is from a far slower supplier: had it to wait, a distant supplier would be
// asked for one block in a round trip, which looks like a low rate and keeps it so. Neither applies to a supplier that sends runs,
// because each of its runs is a single HTTP request; but while the intake is full, it steals from peers only if it gains much. The
// streams of a web seed may always steal from each other: a few have long runs, and when one is done, it shares those of the others.
const (
	stealAhead = 200 * time.Millisecond // a supplier with more work than this and two round trips does not steal
	firstLoot  = 16                     // thefts of little gain that the ration begins with
	muchTime   = 10 * time.Second       // a gain of this is large, however slow all suppliers are together
	lootRatio  = 100                    // received blocks that add one theft to the ration, or half of one while thefts are wasteful
	muchSlower = 3                      // how many times slower than a thief that has more work a supplier must be
	farSlower  = 8                      // how many times slower than the thief a supplier must be while the intake is full
	crowd      = 64                     // with more suppliers than this, farSlower grows, because some seem slower by chance
)

// An outlook is the state of the download that decides which thefts gain much.
type outlook struct {
	now      time.Time
	together time.Duration // time in which all suppliers answer all outstanding requests
	full     bool          // the intake is full
	slower   float64       // how many times slower than the thief a supplier must be while the intake is full
	wasteful bool          // many blocks came twice
}

func (pk *Picker) outlook(now time.Time) outlook {
	slower := farSlower * max(1, float64(len(pk.suppliers))/crowd)
	return outlook{now, pk.together(), pk.full(now), slower, pk.wasteful()}
}

// large reports whether a theft by s from o gains so much that it is not rationed. That is so if it gains at least a second, and
// either twice the time in which all suppliers together answer all requests or muchTime, and o has been measured or silent for at
// least a second. It is also so if o has never sent anything and has been silent for a second.
//
// While the intake is full, blocks that o sent may be waiting for us. Then o must also have been silent for longer or be far
// slower than s, and few blocks may have come twice so far.
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

// full reports whether the intake is full. If thefts are wasteful, an earlier lull was no sign of room, and is disregarded.
func (pk *Picker) full(now time.Time) bool {
	if pk.wasteful() {
		pk.intake.slack = false
	}
	return pk.intake.full(now)
}

// wasteful reports whether the number of blocks that came twice exceeds a quarter of the ration.
func (pk *Picker) wasteful() bool {
	return 4*(pk.intake.total-pk.received) > firstLoot+pk.received/lootRatio
}

// together returns the time in which all suppliers together answer all outstanding requests, or 0 if no rate is known.
func (pk *Picker) together() time.Duration {
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

// hasRation reports whether a theft of little gain is allowed.
func (pk *Picker) hasRation() bool {
	grown := pk.received / lootRatio
	if pk.wasteful() {
		grown /= 2
	}
	return pk.loot < firstLoot+grown
}

// maySteal reports whether s may be asked for the block of the k-th request to o.
//
// If the block is requested from another supplier too, s replaces the slower of the two, and must send the block in under half
// their time: two slow suppliers must not keep a block from a fast one that is idle. It does not replace one that goes on with its
// run. If the rates of s and o are unknown, s may not steal, or such suppliers would take the block from each other before any of
// them can send it. A supplier that was never asked for anything is exempt.
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
	if pk.goesOn(o, s) {
		return false
	}
	if s.pace.rate <= 0 && o.pace.rate <= 0 && !o.stuck(id.Piece) && s.asked {
		return false
	}
	at := slices.IndexFunc(other.queue, func(q outstanding) bool { return q.Block == id })
	pk.work += int64(at / requestsPerStep)
	eta := other.eta(at, now)
	if !other.stuck(id.Piece) && eta <= 2*s.eta(len(s.queue), now) {
		return false // other sends it soon enough
	}
	return o.stuck(id.Piece) || !other.stuck(id.Piece) && eta <= o.eta(k, now)
}

// goesOn reports whether o goes on with its run if s takes over a block of it, because s has so much less credit and may never send
// it. Others like s could come without end, and a server that takes seconds for each answer would have to begin again each time.
func (pk *Picker) goesOn(o, s *Supplier) bool { return o.Runs && !s.Runs && pk.trusts(o, s) }

// mayReassign reports whether s may take over the piece of the k-th request to o, if that is on parole. The whole piece starts
// again then, so s must outdo o, and must not be a stranger that o precedes: a server may take seconds for each answer. It reports
// true for a piece that is not on parole.
func (pk *Picker) mayReassign(s, o *Supplier, k int, now time.Time) bool {
	p := pk.started[o.queue[k].Piece]
	if !p.parole {
		return true
	}
	keeps := o.Runs && pk.precedes(o, s, p) && now.Sub(o.heard) < snubTimeout
	return (o.stuck(p.piece) && !p.waits || !keeps && pk.outdoes(s, o, p, k, now)) && !pk.outranked(s, p)
}
