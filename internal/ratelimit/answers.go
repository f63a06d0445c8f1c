package ratelimit

import (
	"maps"
	"time"

	"golang.org/x/time/rate"
)

// Answers pace messages that count against limits as blocks do, but do not wait behind blocks: under a low limit that blocks use
// up, the requester would be gone before its turn. Instead later blocks wait for the messages, which get no more than half of a
// limit while blocks wait. The zero value is ready to use.
type Answers struct {
	last map[*rate.Limiter]answered // the last message under each limit, as long as others must wait for it
}

type answered struct {
	at time.Time
	n  int // bytes
}

// due returns when the next message may be sent under a limit that is short of tokens.
func (a answered) due(limit rate.Limit) time.Time {
	seconds := 2 * float64(a.n) / max(float64(limit), 1)
	return a.at.Add(time.Duration(seconds * float64(time.Second)))
}

// Delay counts n bytes and returns 0 if they may be sent now. Otherwise it returns how long to wait before the next call. now
// must be the current time.
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
