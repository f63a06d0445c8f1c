package peerlist

import (
	"iter"
	"slices"
	"time"
)

const (
	maxHalfOpen       = 20
	maxDialsPerSecond = 30
	// waitsFor is how long a download that was refused a dial keeps its turn without asking again. It asks once in a
	// budgetRound.
	waitsFor = 2 * budgetRound
)

// dials bounds how many connections are half open, and how many dials begin in any second. When all are under way,
// the downloads that share them take turns. Otherwise one with thousands of candidates that do not answer would keep
// the others from the few that do. The zero value is ready.
type dials struct {
	halfOpen int
	less     int                          // of maxHalfOpen, because connections leave no room for more
	began    [maxDialsPerSecond]time.Time // the last dials, from oldest on around
	oldest   int
	waiting  []waiter // downloads that were refused a dial, in turn
}

// waiter is a download that waits for a dial.
type waiter struct {
	by    any
	asked time.Time // when it last asked
}

// allowance returns how many dials may begin now. If only the rate forbids one, wait is how long it does.
func (b *dials) allowance(now time.Time) (n int, wait time.Duration) {
	room := maxHalfOpen - b.less - b.halfOpen
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

// left is the allowance of one download: what the downloads before it in turn leave.
func (b *dials) left(by any, now time.Time) (n int, wait time.Duration) {
	n, wait = b.allowance(now)
	for k, w := range b.current(now) {
		if w.by == by {
			return max(0, n-k), wait
		}
	}
	return max(0, n-len(b.waiting)), wait
}

// current returns the waiting downloads, without those that have not asked for a while.
func (b *dials) current(now time.Time) []waiter {
	b.waiting = slices.DeleteFunc(b.waiting, func(w waiter) bool { return now.Sub(w.asked) > waitsFor })
	return b.waiting
}

// wait adds a download that was refused a dial behind those that wait already.
func (b *dials) wait(by any, now time.Time) {
	for k := range b.waiting {
		if b.waiting[k].by == by {
			b.waiting[k].asked = now
			return
		}
	}
	b.waiting = append(b.waiting, waiter{by, now})
}

// served removes a download from those that wait, because it has begun a dial or may not dial for another reason.
func (b *dials) served(by any) {
	b.waiting = slices.DeleteFunc(b.waiting, func(w waiter) bool { return w.by == by })
}

// turn yields the waiting downloads that may begin a dial now.
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

// begin counts a connection that is begun. Half-open connections are counted separately, because one dial may begin
// two in turn.
func (b *dials) begin(now time.Time) {
	b.began[b.oldest] = now
	b.oldest = (b.oldest + 1) % len(b.began)
}

// end counts a dial that is over, whether it led to a connection or not.
func (b *dials) end() { b.halfOpen-- }
