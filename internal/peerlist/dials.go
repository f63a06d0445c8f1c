package peerlist

import (
	"iter"
	"slices"
	"time"
)

const (
	maxHalfOpen       = 20
	maxDialsPerSecond = 30
	// waitsFor is how long one that was refused a dial keeps its turn without asking again. It asks once in a budgetRound.
	waitsFor = 2 * budgetRound
)

// dials bounds how many connections are half open, and how many dials begin in any second. Where they are all under
// way, those that share them take turns: one with thousands of candidates that do not answer would keep the others
// from the few that do. The zero value is ready.
type dials struct {
	halfOpen int
	began    [maxDialsPerSecond]time.Time // the last dials, from oldest on around
	oldest   int
	waiting  []waiter // those that were refused one, in turn
}

// waiter is one that waits for a dial.
type waiter struct {
	by    any
	asked time.Time // when it last did
}

// allowance returns how many dials may begin now. If only the rate forbids one, wait is how long it does.
func (b *dials) allowance(now time.Time) (n int, wait time.Duration) {
	room := maxHalfOpen - b.halfOpen
	for n < room && n < len(b.began) {
		age := now.Sub(b.began[(b.oldest+n)%len(b.began)])
		if age < time.Second {
			if n == 0 {
				wait = time.Second - age
			}
			break
		}
		n++
	}
	return n, wait
}

// left is allowance for one of those that share the dials: what those before it leave.
func (b *dials) left(by any, now time.Time) (n int, wait time.Duration) {
	n, wait = b.allowance(now)
	for k, w := range b.current(now) {
		if w.by == by {
			return max(0, n-k), wait
		}
	}
	return max(0, n-len(b.waiting)), wait
}

// current returns those that wait, without those that have not asked for a while.
func (b *dials) current(now time.Time) []waiter {
	b.waiting = slices.DeleteFunc(b.waiting, func(w waiter) bool { return now.Sub(w.asked) > waitsFor })
	return b.waiting
}

// wait has one that was refused a dial wait for it, behind those that do already.
func (b *dials) wait(by any, now time.Time) {
	for k := range b.waiting {
		if b.waiting[k].by == by {
			b.waiting[k].asked = now
			return
		}
	}
	b.waiting = append(b.waiting, waiter{by, now})
}

// served has one wait no more, which has begun a dial, or may not for another reason.
func (b *dials) served(by any) {
	b.waiting = slices.DeleteFunc(b.waiting, func(w waiter) bool { return w.by == by })
}

// turn yields those that wait and may begin a dial now.
func (b *dials) turn(now time.Time) iter.Seq[any] {
	return func(yield func(any) bool) {
		n, _ := b.allowance(now)
		for _, w := range b.current(now) {
			if n--; n < 0 || !yield(w.by) {
				return
			}
		}
	}
}

// pause returns how long the rate alone forbids another dial.
func (b *dials) pause(now time.Time) time.Duration {
	return max(0, time.Second-now.Sub(b.began[b.oldest]))
}

// begin counts a connection that is begun. What is half open is counted apart, as one dial may begin two in turn.
func (b *dials) begin(now time.Time) {
	b.began[b.oldest] = now
	b.oldest = (b.oldest + 1) % len(b.began)
}

// end counts a dial that is over, whether it led to a connection or not.
func (b *dials) end() { b.halfOpen-- }
