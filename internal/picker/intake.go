package picker

import (
	"math"
	"time"
)

// intake measures the rate of blocks from all suppliers together. It is full while our own link or this machine cannot take more.
// Then blocks that a supplier has sent wait for us, and the supplier seems slow.
type intake struct {
	since  time.Time // start of the current window
	blocks int       // received in the current window
	total  int64     // received in all
	last   float64   // rate of the previous window, in blocks a second
	best   float64   // highest rate of a window, decaying with age
	low    time.Time // since when the rate is below 1/fullShare of best; zero if it is not
	slack  bool      // the rate was that low for intakeLull, so there is room; cleared when it exceeds best
}

const (
	intakeWindow   = 250 * time.Millisecond
	intakeHalfLife = 10 * time.Second // after which best counts half
	// fullRate is the lowest rate at which the intake can be full, in blocks a second; 32 MiB/s. Below it, the rates of suppliers
	// can be measured well.
	fullRate = 2048
	// The intake is full while its rate is at least 1/fullShare of best. If suppliers are the cause of a lower rate, few of them
	// are left.
	fullShare = 4
	// intakeLull is how long the rate may be lower while the intake stays full. On a busy machine, this process has to wait now
	// and then.
	intakeLull = time.Second / 2
)

// add counts a received block.
func (in *intake) add(now time.Time) {
	if d := now.Sub(in.since); d >= intakeWindow {
		in.last = float64(in.blocks) / d.Seconds()
		in.best *= math.Exp2(-d.Seconds() / intakeHalfLife.Seconds())
		if in.last > in.best {
			in.best, in.slack = in.last, false
		}
		in.since, in.blocks = now, 0
	}
	in.blocks++
	in.total++
	in.look(now)
}

// full reports whether the rate is, or was until a moment ago, so high that it may be all that we can take.
func (in *intake) full(now time.Time) bool {
	in.look(now)
	return in.best >= fullRate && !in.slack
}

// look updates low and slack. It is not called while this process waits, so a wait alone is not taken for a lull.
func (in *intake) look(now time.Time) {
	d := now.Sub(in.since)
	rate := float64(in.blocks) / max(d, intakeWindow).Seconds()
	if d < intakeWindow {
		rate += in.last * float64(intakeWindow-d) / float64(intakeWindow)
	}
	if rate >= in.best/fullShare {
		in.low = time.Time{}
	} else if in.low.IsZero() {
		in.low = now
	} else if now.Sub(in.low) >= intakeLull {
		in.slack = true
	}
}
