package picker

import (
	"math"
	"time"
)

// intake measures how many blocks come from all suppliers together. While our own link or this machine cannot take more,
// it is full: what a supplier sent waits for us, which looks as if the supplier were slow.
type intake struct {
	since  time.Time // start of the present window
	blocks int       // received in it
	total  int64     // received in all
	last   float64   // rate of the window before, in blocks a second
	best   float64   // the highest rate of a window; the older it is, the less it counts
	low    time.Time // since when far less than that comes; zero while it does not
	slack  bool      // less came for a while, so there is room; until more comes than ever
}

const (
	intakeWindow   = 250 * time.Millisecond
	intakeHalfLife = 10 * time.Second // after which an earlier rate counts half
	// fullRate is the least rate that may be as much as we can take, in blocks a second; 32 MiB/s. What takes longer lets
	// suppliers be measured well.
	fullRate = 2048
	// fullShare is the part of the best rate, one in so many, that counts as full. Where suppliers are slow,
	// few of them are left once less comes.
	fullShare = 4
	// intakeLull is how long less may come while the intake is full: on a busy machine this process has to wait now and then.
	intakeLull = time.Second / 2
)

// add counts a block.
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

// full reports whether so much comes, or came until a moment ago, that it may be as much as we can take.
func (in *intake) full(now time.Time) bool {
	in.look(now)
	return in.best >= fullRate && !in.slack
}

// look keeps low and slack up to date. While this process waits nothing is looked at, so that a wait alone is no lull.
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
