package picker

import (
	"math"
	"time"
)

// pace measures the rate at which a supplier answers requests.
type pace struct {
	rate     float64   // bytes a second; 0 while unknown
	measured time.Time // when rate was last set
	bytes    float64   // received, decaying with age
	seconds  float64   // spent waiting for bytes, decaying with age
}

const (
	// guessedRate is used for an unknown rate, in bytes a second.
	guessedRate = 64 << 10
	// paceHalfLife is the waiting time after which a measurement counts half.
	paceHalfLife = 3 * time.Second
)

// add counts n bytes that arrived after a silence. The rate is underestimated during the first second, because a single block may
// have been in a buffer already.
func (p *pace) add(n int, silence time.Duration, now time.Time) {
	keep := math.Exp2(-silence.Seconds() / paceHalfLife.Seconds())
	p.bytes = p.bytes*keep + float64(n)
	p.seconds = p.seconds*keep + silence.Seconds()
	p.rate = p.bytes / max(p.seconds, 1)
	p.measured = now
}

// The rate may have been measured while our own link was full. The older it is, the faster the supplier is assumed to be: twice
// as fast after doubtAfter, three times after twice doubtAfter, and so on until maxDoubt.
const (
	doubtAfter = 10 * time.Second
	maxDoubt   = 60 * time.Second
)

// estimate returns how long n bytes that are requested now are expected to take, with the given round-trip time.
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

// How long a supplier may be silent while requests are outstanding, before it is snubbed.
const (
	snubTimeout    = 20 * time.Second  // while its block times are unknown
	minSnubTimeout = 10 * time.Second  // for a fast supplier
	maxSnubTimeout = 180 * time.Second // for a slow supplier
)

// deviation is the smoothed mean and mean deviation of the times between blocks, computed as in RFC 6298.
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

// patience returns the silence after which a supplier is snubbed.
func (v *deviation) patience() time.Duration {
	if v.n < 8 { // too few samples
		return snubTimeout
	}
	return min(max(minSnubTimeout, v.mean+4*v.dev), maxSnubTimeout)
}
