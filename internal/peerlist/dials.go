package peerlist

import "time"

const (
	maxHalfOpen       = 20
	maxDialsPerSecond = 30
)

// dials bounds how many connections are half open, and how many dials begin in any second. The zero
// value is ready.
type dials struct {
	halfOpen int
	began    [maxDialsPerSecond]time.Time // the last dials, from oldest on around
	oldest   int
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

// wait returns how long the rate alone forbids another dial.
func (b *dials) wait(now time.Time) time.Duration {
	return max(0, time.Second-now.Sub(b.began[b.oldest]))
}

// begin counts a connection that is begun. What is half open is counted apart, as one dial may begin two in turn.
func (b *dials) begin(now time.Time) {
	b.began[b.oldest] = now
	b.oldest = (b.oldest + 1) % len(b.began)
}

// end counts a dial that is over, whether it led to a connection or not.
func (b *dials) end() { b.halfOpen-- }
