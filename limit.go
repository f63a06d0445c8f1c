package torrent

import (
	"context"
	"math"
	"slices"
	"time"

	"golang.org/x/time/rate"
)

const (
	// limitSlack is how far ahead of its limit traffic may run. A timer that fires late by less
	// finds the limiter still in debt, so no tokens spill over the rim of a small bucket.
	limitSlack = 20 * time.Millisecond
	// limitRecheck bounds how long a change of a limit may stay unnoticed.
	limitRecheck = 500 * time.Millisecond
)

// limits are the rate limits that apply to the same bytes, such as a download's and its client's,
// in bytes a second. They may be shared with others, and changed while in use. A bucket smaller than what
// passes at once is no obstacle: tokens are taken in slices.
type limits []*rate.Limiter

// newLimits leaves out nil, and the second mention of the same limiter.
func newLimits(l ...*rate.Limiter) limits {
	var all limits
	for _, lim := range l {
		if lim != nil && !slices.Contains(all, lim) {
			all = append(all, lim)
		}
	}
	return all
}

// claim is a place in the queue of one limiter.
type claim struct {
	limiter *rate.Limiter
	ahead   float64    // tokens that the limiter must still earn before it is this one's turn
	limit   rate.Limit // how fast it earned them at at
	at      time.Time
}

// reservation is a place in the queues of several limiters: bytes that will pass once all of them
// agree. The zero value may pass at once.
type reservation []claim

// reserve takes n tokens from each limiter. It is not ok, and nothing is taken, while one of them lets nothing
// through (a limit or a burst of 0); to be asked again after limitRecheck. now should be fresh: a limiter that is told
// a time before the one it knows earns the difference twice.
func (l limits) reserve(now time.Time, n int) (r reservation, ok bool) {
	for _, lim := range l {
		if limit := lim.Limit(); limit != rate.Inf && (limit <= 0 || lim.Burst() <= 0) {
			return nil, false
		}
	}
	for _, lim := range l {
		if limit := lim.Limit(); limit != rate.Inf {
			delay := take(lim, now, n)
			r = append(r, claim{lim, delay.Seconds() * float64(limit), limit, now})
		}
	}
	return r, true
}

// take draws n tokens in slices of at most the bucket, and returns when the last of them is earned.
func take(lim *rate.Limiter, now time.Time, n int) (delay time.Duration) {
	for n > 0 {
		slice := min(n, max(lim.Burst(), 1))
		r := lim.ReserveN(now, slice)
		if !r.OK() {
			break // changed under our hands: the rest passes unpaid
		}
		delay = r.DelayFrom(now)
		n -= slice
	}
	return delay
}

// delay is how long until the bytes may pass, at the limits as they are now.
func (r reservation) delay(now time.Time) (delay time.Duration) {
	for i := range r {
		delay = max(delay, r[i].delay(now))
	}
	return delay
}

func (c *claim) delay(now time.Time) time.Duration {
	c.ahead -= now.Sub(c.at).Seconds() * float64(c.limit)
	c.limit, c.at = c.limiter.Limit(), now
	if c.ahead <= 0 || c.limit == rate.Inf {
		c.ahead = 0
		return 0
	}
	return time.Duration(min(c.ahead/max(float64(c.limit), math.SmallestNonzeroFloat64), 3600) * float64(time.Second))
}

// wait returns when n bytes may be sent, or the error of ctx.
func (l limits) wait(ctx context.Context, n int) error {
	if len(l) == 0 {
		return ctx.Err()
	}
	var r reservation
	var ok bool
	for tolerated := limitSlack; ; tolerated = limitSlack / 2 {
		pause := limitRecheck
		if !ok {
			r, ok = l.reserve(time.Now(), n)
		}
		if ok {
			delay := r.delay(time.Now())
			if delay <= tolerated {
				return ctx.Err()
			}
			pause = min(pause, delay-limitSlack/2)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// gate paces the requests of one download, so that what peers send in answer stays within its
// limits. The owner's lock guards it.
type gate struct {
	limits limits
	block  int // bytes that one request asks for

	unused int         // requests that were admitted and came to nothing
	queued bool        // whether next holds a place
	next   reservation // the place in the queue of the request after those admitted
	pause  time.Duration
}

// newGate makes a gate for requests of block bytes each.
func newGate(l limits, block int) gate { return gate{limits: l, block: block} }

// admit returns how many requests may be sent now, at most most.
func (g *gate) admit(now time.Time, most int) (n int) {
	g.pause = 0
	if len(g.limits) == 0 {
		return most
	}
	n = min(g.unused, most)
	g.unused -= n
	for n < most {
		if !g.queued {
			if g.next, g.queued = g.limits.reserve(now, g.block); !g.queued {
				g.pause = limitRecheck
				return n
			}
		}
		if delay := g.next.delay(now); delay > limitSlack {
			g.pause = min(delay-limitSlack/2, limitRecheck)
			return n
		}
		g.queued = false
		n++
	}
	return n
}

// again is how long after the last admit to ask once more; 0 if that admitted all it was asked for.
func (g *gate) again() time.Duration { return g.pause }

// giveBack returns requests that were admitted and not sent, or not answered. They are admitted first next time.
func (g *gate) giveBack(n int) {
	if len(g.limits) > 0 {
		g.unused = min(g.unused+n, maxUnused)
	}
}

// maxUnused bounds the burst that requests given back may cause.
const maxUnused = 64
