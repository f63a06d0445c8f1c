// Package ratelimit paces traffic by limits that others may share and change while they are in use: a
// Gate holds back requests, so that what comes in answer stays within them, and Queues hold back blocks that are
// sent, as Answers do other messages. A Meter measures the rate that comes of it.
//
// The limiters of golang.org/x/time/rate have locks of their own and may be used by any number of
// downloads, and so may a Queue, which also has a timer. A Gate, a Turn, Answers and a Meter have none: each belongs to one owner,
// whose lock guards it. None of these waits or looks at a clock; the time is an argument.
package ratelimit

import (
	"math"
	"slices"
	"time"

	"golang.org/x/time/rate"
)

const (
	// slack is how far ahead of its limit traffic may run. A timer that fires late by less
	// finds the limiter still in debt, so no tokens are lost because a small bucket is full.
	slack = 20 * time.Millisecond
	// recheck bounds how long a change of a limit may stay unnoticed.
	recheck = 250 * time.Millisecond
	// leastBurst is what a limiter without a burst is given. It would let nothing pass, which who sets a limit does not mean.
	leastBurst = 16 << 10
)

// Limits are the rate limits that apply to the same bytes, such as a download's and its client's,
// in bytes a second. They may be shared with others, and changed while in use. A bucket may be smaller
// than what passes at once: tokens are taken in slices.
type Limits []*rate.Limiter

// Join returns a download's limit and its client's. Nil is none, and one limiter that serves as both
// applies once.
func Join(download, client *rate.Limiter) (l Limits) {
	if download != nil {
		l = append(l, download)
	}
	if client != nil && client != download {
		l = append(l, client)
	}
	return l
}

// Closed reports whether one of the limits lets nothing pass.
func (l Limits) Closed() bool {
	return slices.ContainsFunc(l, func(lim *rate.Limiter) bool { return lim.Limit() <= 0 })
}

// reservation is a place in the queue of each limiter: bytes that will pass once all of them agree.
// The zero value may pass at once.
type reservation [2]claim

// claim is a place in the queue of one limiter, or of none.
type claim struct {
	limiter *rate.Limiter
	ahead   float64    // tokens that the limiter must still earn before it is this one's turn
	limit   rate.Limit // how fast it earned them when last asked
	at      time.Time  // when that was
}

// reserve takes n tokens from each limiter. It is not ok, and nothing is taken, while one of them
// lets nothing pass (a limit of 0); the caller tries again after recheck. now must be
// fresh: a limiter that is given an earlier time than before earns the time between twice.
func (l Limits) reserve(now time.Time, n int) (r reservation, ok bool) {
	if l.Closed() {
		return r, false
	}
	for _, lim := range l {
		if lim.Limit() != rate.Inf && lim.Burst() <= 0 {
			lim.SetBurstAt(now, leastBurst)
		}
	}
	for i, lim := range l {
		if limit := lim.Limit(); limit != rate.Inf {
			r[i] = claim{lim, take(lim, now, n), limit, now}
		}
	}
	return r, true
}

// take draws n tokens in slices of at most the bucket, and returns how many the limiter then owes.
func take(lim *rate.Limiter, now time.Time, n int) float64 {
	for n > 0 {
		slice := min(n, max(lim.Burst(), 1))
		lim.ReserveN(now, slice) // fails only if the bucket shrank just now, and then one slice passes free
		n -= slice
	}
	return max(0, -lim.TokensAt(now))
}

// refund returns n of the tokens that were taken, for bytes that do not pass after all. Reservations made
// later move up.
func (r *reservation) refund(now time.Time, n int) {
	for _, c := range r {
		if c.limiter != nil {
			putBack(c.limiter, now, n)
		}
	}
}

// putBack undoes take. A rate.Reservation's own Cancel would keep back what others have taken since.
func putBack(lim *rate.Limiter, now time.Time, n int) {
	if n > 0 {
		lim.ReserveN(now, -n)
	}
}

// delay is how long until the bytes may pass, at the limits as they are now.
func (r *reservation) delay(now time.Time) (delay time.Duration) {
	for i := range r {
		if r[i].limiter != nil {
			delay = max(delay, r[i].delay(now))
		}
	}
	return delay
}

func (c *claim) delay(now time.Time) time.Duration {
	limit := c.limiter.Limit()
	// When the limit changed is not known. It is safe to assume the lower one for all the time
	// since; but more than the limiter owes now cannot be ahead.
	c.ahead -= now.Sub(c.at).Seconds() * float64(min(c.limit, limit))
	c.ahead = min(c.ahead, -c.limiter.TokensAt(now))
	c.limit, c.at = limit, now
	if c.ahead <= 0 || c.limit == rate.Inf {
		c.ahead = 0
		return 0
	}
	seconds := c.ahead / max(float64(c.limit), math.SmallestNonzeroFloat64)
	return time.Duration(min(seconds, 3600) * float64(time.Second))
}
