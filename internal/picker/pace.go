package picker

import (
	"math"
	"time"
)

// pace measures how fast a supplier sends what it was asked for.
type pace struct {
	rate     float64   // bytes a second, or 0 while unknown
	measured time.Time // when rate was last set
	bytes    float64   // that came, and
	seconds  float64   // in which they were waited for; of both, the latest count most
}

const (
	// guessedRate stands in for an unknown rate, in bytes a second.
	guessedRate = 64 << 10
	// paceHalfLife is the waiting time after which an earlier measurement counts half.
	paceHalfLife = 3 * time.Second
)

// add counts n bytes that came after a silence. The rate is low during the first second, because a single block
// may have lain in a buffer.
func (p *pace) add(n int, silence time.Duration, now time.Time) {
	keep := math.Exp2(-silence.Seconds() / paceHalfLife.Seconds())
	p.bytes = p.bytes*keep + float64(n)
	p.seconds = p.seconds*keep + silence.Seconds()
	p.rate = p.bytes / max(p.seconds, 1)
	p.measured = now
}

// The rate was perhaps measured while our own link was full. The older it is, the more it is doubted: after
// doubtAfter the supplier is expected to be twice as fast, after another doubtAfter three times.
const (
	doubtAfter = 10 * time.Second
	maxDoubt   = 60 * time.Second
)

// estimate is how long n bytes are expected to take that are asked for now, with the given round trip.
func (p *pace) estimate(n float64, rtt time.Duration, now time.Time) time.Duration {
	rate := p.rate
	if rate <= 0 {
		rate = guessedRate
	}
	d := time.Duration(n/rate*float64(time.Second)) + rtt
	if !p.measured.IsZero() {
		d = time.Duration(float64(d) / (1 + min(now.Sub(p.measured), maxDoubt).Seconds()/doubtAfter.Seconds()))
	}
	return d
}

// How long a supplier may be silent while requests are outstanding.
const (
	snubTimeout    = 20 * time.Second  // while its block times are unknown
	minSnubTimeout = 10 * time.Second  // however fast it was
	maxSnubTimeout = 180 * time.Second // however slow it was
)

// deviation is a smoothed mean of the times between blocks, and of how far they are from it (RFC 6298).
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

// patience is the silence after which a supplier is snubbed.
func (v *deviation) patience() time.Duration {
	if v.n < 8 { // too few to rely on
		return snubTimeout
	}
	return min(max(minSnubTimeout, v.mean+4*v.dev), maxSnubTimeout)
}
