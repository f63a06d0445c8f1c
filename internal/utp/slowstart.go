package utp

import (
	"math"
	"time"
)

const (
	delaySamples   = 8 // in a round trip, before a rise in delay is believed
	cautiousRounds = 5
	cautiousGrowth = 4
)

// slowStart doubles the window each round trip until it fills the path. That shows in a queue before it
// shows in a loss (HyStart++, RFC 9406): when the shortest wait within a round trip rises, growth becomes
// cautious, and ends after five more round trips, if it was no false alarm.
type slowStart struct {
	until    float64       // the window at which it ends; 0 if it is over
	cautious int           // round trips left, or 0
	alarm    time.Duration // the wait that made it cautious
	least    time.Duration // wait of the last few samples
	samples  int           // in least
	lowest   time.Duration // wait in this round trip
	round    int           // samples in lowest
}

func (s *slowStart) begin(until float64) { *s = slowStart{until: until} }
func (s *slowStart) end()                { s.until = 0 }
func (s *slowStart) active() bool        { return s.until != 0 }

// growth returns how much an acknowledgement adds to the window.
func (s *slowStart) growth(c *congestion, m measure, ended bool) float64 {
	if s.samples == 0 || m.queue < s.least {
		s.least = m.queue
	}
	if s.round == 0 || m.queue < s.lowest {
		s.lowest = m.queue
	}
	s.round++
	if s.samples++; s.samples == delaySamples {
		s.samples = 0
		if s.least >= c.target.limit {
			s.end()
		}
		if rise := min(max(m.base/8, 4*time.Millisecond), 16*time.Millisecond); s.cautious == 0 && s.least >= rise {
			s.cautious, s.alarm = cautiousRounds+1, s.least
		}
	}
	if ended {
		if s.lowest >= c.target.limit {
			s.end()
		}
		if s.cautious > 0 {
			if s.cautious--; s.cautious == 0 {
				s.end()
			} else if s.lowest < s.alarm/4 {
				s.cautious = 0 // a false alarm
			}
		}
		s.round = 0
	}
	if c.window >= s.until {
		s.end()
	}
	if !s.active() {
		c.down.first(m)
		return 0
	}
	if !m.limited {
		return 0
	}
	grow := float64(m.bytes)
	if s.cautious > 0 {
		grow /= cautiousGrowth
	}
	if !math.IsInf(s.until, 1) {
		grow = min(grow, s.until-c.window)
	}
	return grow
}
