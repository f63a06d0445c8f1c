package utp

import "time"

const (
	shallow       = 4   // a queue is if it loses packets at this fraction of the round trip
	rivalFlight   = 0.8 // of our most under way, below which we did not fill the queue
	rivalMemory   = 10 * time.Second
	longestMemory = time.Minute
	rivalGain     = 1. / 8 // of a packet, that the window grows by in a round trip
)

// rivals knows whether another flow lives on losses in a queue that is too short for the delay to tell. TCP
// leaves such a path partly empty after each loss, and fills it by a packet a round trip: what we take
// meanwhile it never gets back, for its next loss comes the sooner. Alone, we stay below the length at which
// the queue loses packets. If it overflows though we had made room already, the other that filled it is no
// flow of our kind. From then on the window hardly grows, until that has not happened for a while.
type rivals struct {
	most  int           // bytes under way since what the last overflow led to shows
	from  uint32        // the transmission from which on it does
	last  time.Duration // overflow
	full  recentMost    // how long the queue gets, in seconds
	until time.Duration // that another is believed to be there
}

func (r *rivals) acknowledged(m measure) {
	r.full.sample(m.queue.Seconds(), m.now)
	if int32(m.newest-r.from) >= 0 {
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
