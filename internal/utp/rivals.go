package utp

import "time"

const (
	shallow       = 4   // a queue is if it loses packets at this fraction of the round trip
	rivalFlight   = 0.8 // of our most under way, below which we did not fill the queue
	rivalMemory   = 10 * time.Second
	longestMemory = time.Minute
	rivalGain     = 1. / 8 // of a packet, that the window grows by in a round trip
)

// rivals detects another flow that relies on losses in a queue too short for the delay to show it. TCP leaves such a
// path partly empty after each loss, and fills it by a packet a round trip. The room that we take meanwhile it never
// gets back, because its next loss comes sooner. Alone, we stay below the length at which the queue loses packets. If
// it overflows although we had made room already, the flow that filled it is not one of our kind. From then on the
// window hardly grows, until that has not happened for a while.
type rivals struct {
	most  int           // bytes under way since what the last overflow led to shows
	from  uint32        // the transmission from which on it does
	last  time.Duration // overflow
	full  recentMost    // how long the queue gets, in seconds
	until time.Duration // until when a rival is assumed to exist
}

func (r *rivals) acknowledged(m measure) {
	r.full.sample(m.queue.Seconds(), m.now)
	if m.newest != 0 && int32(m.newest-r.from) >= 0 { // 0 is that all came late
		r.from, r.most = m.newest, max(r.most, m.flight) // numbers go round
	}
}

// lost records that a packet was lost while the queue was so long.
func (r *rivals) lost(queue time.Duration, m measure) {
	if queue.Seconds() < 0.75*r.full.value() {
		return // by chance
	}
	if queue <= m.base/shallow && float64(m.flight) < rivalFlight*float64(r.most) {
		r.until = m.now + min(max(rivalMemory, 2*(m.now-r.last)), longestMemory)
	}
	r.most, r.from, r.last = 0, m.next, m.now
}

func (r *rivals) present(now time.Duration) bool { return now < r.until }
