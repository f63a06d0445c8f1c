package utp

import (
	"sync"
	"time"
)

const (
	guessesForgiven  = 64                     // wrong confirmations, after which there are too many
	guessesPerSecond = 1                      // that are forgotten
	echoTolerance    = 100 * time.Millisecond // by which the clocks of a confirmation may be off
)

// guesses counts how many packets recently confirmed a connection wrongly. The number that one has to acknowledge has only 16 bits:
// who does not see our answers can try them all, and would have connections from addresses that are not its own. After some wrong
// ones, a confirmation must also tell the time at which we sent what it confirms. Every packet tells that,
// but one that tells it wrongly still counts as long as wrong confirmations are few.
type guesses struct {
	mu    sync.Mutex
	wrong tally
}

// count adds some wrong ones, and reports whether there are too many.
func (g *guesses) count(wrong float64, now time.Duration) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wrong.n = min(g.wrong.lately(guessesPerSecond, now)+wrong, 2*guessesForgiven)
	return g.wrong.n >= guessesForgiven
}

// confirmedBy reports whether a packet proves that the other end has seen our answer to its SYN.
func (e *endpoint) confirmedBy(h *packet, now time.Duration) bool {
	if h.ack == e.out.una-1 && (e.echoes(h, now) || !e.guesses.count(0, now)) {
		return true
	}
	e.guesses.count(1, now)
	return false
}

// echoes reports whether a packet tells a time at which we may have sent our answer, and how long ago it came.
func (e *endpoint) echoes(h *packet, now time.Duration) bool {
	const tolerance = uint32(echoTolerance / time.Microsecond)
	answered := e.timers.handshake - unconfirmedFor
	since := h.stamp - h.diff - e.stamp(answered)
	return since+tolerance <= stamp(now-answered)+2*tolerance
}
