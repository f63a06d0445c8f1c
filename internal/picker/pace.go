package picker

import (
	"math"
	"time"
)

// pace is how fast a peer answers.
type pace struct {
	rate   float64   // bytes a second while it is asked for some, 0 while unknown
	shown  time.Time // when it was last measured
	sent   float64   // bytes that it is measured by, the latest counting most
	waited float64   // seconds in which they were waited for
}

// guessedRate is what a peer of unknown rate is taken to send, bytes a second.
const guessedRate = 64 << 10

const paceHalfLife = 3 * time.Second

// add counts n bytes that came after a silence in which they were waited for. What came and what
// was waited before that counts half as much after each paceHalfLife of waiting. A fast peer shows that it is
// one only after a second: a single block might have lain in a buffer.
func (p *pace) add(n int, silence time.Duration, now time.Time) {
	keep := math.Exp2(-silence.Seconds() / paceHalfLife.Seconds())
	p.sent = p.sent*keep + float64(n)
	p.waited = p.waited*keep + silence.Seconds()
	p.rate = p.sent / max(p.waited, 1)
	p.shown = now
}

// What a peer showed long ago, perhaps while our own link was full, is doubted the more, the longer ago that
// was: after doubtAfter it is believed to be twice as fast, after that again three times.
const (
	doubtAfter = 10 * time.Second
	maxDoubt   = 60 * time.Second
)

// takes is how long n bytes take that the peer is asked for now, rtt away.
func (p *pace) takes(n float64, rtt time.Duration, now time.Time) time.Duration {
	rate := p.rate
	if rate <= 0 {
		rate = guessedRate
	}
	d := time.Duration(n/rate*float64(time.Second)) + rtt
	if !p.shown.IsZero() {
		d = time.Duration(float64(d) / (1 + min(now.Sub(p.shown), maxDoubt).Seconds()/doubtAfter.Seconds()))
	}
	return d
}

const (
	snubTimeout    = 20 * time.Second // nothing of what was asked for, while block times are unknown
	minSnubTimeout = 10 * time.Second
	// maxSnubTimeout is when a connection that says nothing at all ends.
	maxSnubTimeout = 180 * time.Second
)

// patience is how long a peer may let us wait that took so long between blocks.
func (v *deviation) patience() time.Duration {
	if v.n < 8 { // too few to know
		return snubTimeout
	}
	return min(max(minSnubTimeout, v.mean+4*v.dev), maxSnubTimeout)
}

// deviation is a smoothed mean of durations and of how far they stray from it, as RFC 6298 has it.
type deviation struct {
	n         int
	mean, dev time.Duration
}

func (v *deviation) add(d time.Duration) {
	if v.n == 0 {
		v.mean, v.dev = d, d/2
	} else {
		v.dev += ((d - v.mean).Abs() - v.dev) / 4
		v.mean += (d - v.mean) / 8
	}
	v.n++
}
