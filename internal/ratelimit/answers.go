package ratelimit

import (
	"maps"
	"time"

	"golang.org/x/time/rate"
)

// Answers pace messages that count as blocks do, but do not wait behind them: under a low limit that blocks use up, the
// requester would be gone before its turn. Instead later blocks wait for the messages, which get no more than half of a
// limit while they do. The zero value is ready.
type Answers struct {
	last map[*rate.Limiter]answered // under each limit, as long as others have to wait for it
}

type answered struct {
	at time.Time
	n  int // bytes
}

// due is when an answer may follow at a limit.
func (a answered) due(limit rate.Limit) time.Time {
	seconds := 2 * float64(a.n) / max(float64(limit), 1)
	return a.at.Add(time.Duration(seconds * float64(time.Second)))
}

// Delay returns how long to wait before asking again whether n bytes may be sent; 0 if they may be sent now, and then they
// are counted. now must be fresh.
func (a *Answers) Delay(now time.Time, l Limits, n int) time.Duration {
	var wait time.Duration
	maps.DeleteFunc(a.last, func(lim *rate.Limiter, x answered) bool { return !x.due(lim.Limit()).After(now) })
	for _, lim := range l {
		if x, waits := a.last[lim]; waits && lim.TokensAt(now) < float64(min(n, lim.Burst())) {
			wait = max(wait, x.due(lim.Limit()).Sub(now))
		}
	}
	if wait > 0 {
		return min(wait, recheck)
	}
	if _, ok := l.reserve(now, n); !ok {
		return recheck
	}
	for _, lim := range l {
		if a.last == nil {
			a.last = make(map[*rate.Limiter]answered)
		}
		a.last[lim] = answered{now, n}
	}
	return 0
}
