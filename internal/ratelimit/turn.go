package ratelimit

import "time"

// A Turn is one sender's place in the queues of its limits.
type Turn struct {
	limits Limits
	n      int         // bytes that the limits have taken into account; 0 is no place
	place  reservation // of these bytes
}

// NewTurn returns a turn that is not in the queue yet.
func NewTurn(l Limits) Turn { return Turn{limits: l} }

// Delay returns how long to wait before asking again whether n bytes may be sent; 0 if they may be sent
// now. It takes a place in the queue for them, unless the last call did so already. now must be fresh.
func (t *Turn) Delay(now time.Time, n int) time.Duration {
	if t.n != n {
		t.Leave(now)
		place, ok := t.limits.reserve(now, n)
		if !ok {
			return recheck
		}
		t.place, t.n = place, n
	}
	if delay := t.place.delay(now); delay > slack {
		return min(delay-slack/2, recheck)
	}
	return 0
}

// Sent ends the turn after n bytes went out. What was reserved beyond them is refunded.
func (t *Turn) Sent(now time.Time, n int) {
	t.place.refund(now, t.n-n)
	t.place, t.n = reservation{}, 0
}

// Leave ends the turn with nothing sent.
func (t *Turn) Leave(now time.Time) { t.Sent(now, 0) }
