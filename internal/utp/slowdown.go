package utp

import "time"

const (
	firstSlowdown   = 5 * time.Second  // between the first slowdowns
	longestSlowdown = 10 * time.Second // between later ones
)

// slowdown lets the queue run empty for a round trip, so that its delay without us is seen. One who comes
// late to a full link takes the queue that it finds for a part of the path, adds its own on top, and pushes
// out those that were there before: RFC 6817, section 4.4.  It costs no more than the round trip, for until
// then the link lives on the queue.
type slowdown struct {
	next   time.Duration // 0 if slow start has not ended
	every  time.Duration
	cap    float64 // bytes under way; 0 if no slowdown is under way
	empty  bool    // as few are under way
	end    time.Duration
	waited time.Duration // the least since the last slowdown, or the first chance to look
}

func (s *slowdown) active() bool { return s.cap != 0 }

// first schedules the slowdown that follows slow start.
func (s *slowdown) first(m measure) {
	if s.next == 0 {
		s.next, s.every = m.now+2*m.latest, firstSlowdown
		s.waited = targetDelay
	}
}

// consider begins a slowdown if one is due and useful. If the queue was empty recently, its delay is known and none is
// needed.
func (s *slowdown) consider(c *congestion, m measure) {
	if s.next == 0 || m.now < s.next {
		return
	}
	s.next = m.now + s.every
	known := s.waited <= min(emptyQueue(m.base), c.target.limit/8)
	s.waited = targetDelay
	if known || c.window < 4*smallWindow*c.packet {
		return
	}
	s.every = min(2*s.every, longestSlowdown)
	s.cap = max(c.window*float64(m.base)/float64(max(m.latest, m.base))/4, smallWindow*c.packet)
	s.empty = false
	s.end = m.now + 4*m.latest // at the latest
}

// acknowledged ends a slowdown once packets that met no queue of ours have arrived.
func (s *slowdown) acknowledged(m measure) {
	if !s.empty && float64(m.flight-m.bytes) <= s.cap {
		s.empty = true
		s.end = min(s.end, m.now+m.base*3/2)
	}
	if m.now >= s.end {
		s.stop()
	}
}

func (s *slowdown) stop() { s.cap = 0 }
