package peerlist

import (
	"iter"
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
	waiting  turns // downloads that were refused a dial
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
	return max(0, n-b.waiting.ahead(by, false, n, now)), wait
}

// turn yields the waiting downloads that may begin a dial now.
func (b *dials) turn(now time.Time) iter.Seq[any] {
	return func(yield func(any) bool) {
		n, _ := b.allowance(now)
		for w := range b.waiting.all(now) {
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
