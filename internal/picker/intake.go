package picker

import (
	"math"
	"time"
)

// intake measures how many blocks come from all suppliers together. While our own link or this machine cannot take more,
// what a supplier sent waits for us, which looks as if the supplier were slow.
type intake struct {
	since  time.Time // start of the present window
	blocks int       // received in it
	last   float64   // rate of the window before, in blocks a second
	best   float64   // the highest rate of a window; the older it is, the less it counts
	latest time.Time // when the last block came
}

const (
	intakeWindow   = 250 * time.Millisecond
	intakeHalfLife = 10 * time.Second // after which an earlier rate counts half
	// fullRate is the least rate that may be as much as we can take, in blocks a second; 16 MiB/s. What takes longer lets
	// suppliers be measured well.
	fullRate = 1024
	// fullShare is the part of the best rate, one in so many, that counts as full. Where suppliers are slow,
	// few of them are left once less comes.
	fullShare = 4
)

// add counts a block.
func (in *intake) add(now time.Time) {
	if d := now.Sub(in.since); d >= intakeWindow {
		in.last = float64(in.blocks) / d.Seconds()
		in.best = max(in.last, in.best*math.Exp2(-d.Seconds()/intakeHalfLife.Seconds()))
		in.since, in.blocks = now, 0
	}
	in.blocks++
	in.latest = now
}

// full reports whether so much comes that it may be as much as we can take.
func (in *intake) full(now time.Time) bool {
	d := now.Sub(in.since)
	recent := float64(in.blocks) / max(d, intakeWindow).Seconds()
	if d < intakeWindow {
		recent += in.last * float64(intakeWindow-d) / float64(intakeWindow)
	}
	return in.best >= fullRate && recent >= in.best/fullShare && now.Sub(in.latest) < intakeWindow
}
