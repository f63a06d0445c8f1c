package utp

import (
	"math"
	"time"
)

const (
	targetDelay  = 100 * time.Millisecond // the most that our packets may add to a queue (BEP 29)
	targetStep   = 2
	lowestTarget = targetDelay / 64
	targetHalves = 3    // doublings of the window that halve the target
	limitSlope   = 0.07 // of the limit, for each doubling of the window
	leastLimit   = 0.3

	fullQueue      = 3 * targetDelay / 2 // TCP fills a queue beyond this, if it can
	forgetOverflow = 5 * time.Minute
	hunger         = 10 * time.Second // until it is believed that others have another target
	pressedFor     = time.Minute
)

// target is how long a queue may be: targetDelay at most, and less if a shorter queue is enough or a longer one does
// harm.
//
//   - A large window needs no long queue to fill the path, so the target is shorter for larger windows. That
//     leaves little of a queue beside a TCP which keeps it short itself, such as BBR. And of two flows that
//     share a queue, the one with the smaller window grows while the other shrinks.
//   - A queue that overflows before it is as long as the target is never left by delay alone. So the target is
//     no more than the queue that overflowed.
//   - Other implementations have targetDelay whatever their window. Beside them, that is the target too.
type target struct {
	limit time.Duration // as far as it follows from how long the queue can get

	overflow time.Duration // how long the queue gets before it loses packets; 0 if it did not
	floor    uint32        // the delay of an empty queue by which that was measured
	lost     time.Duration // when it lost packets

	pressed time.Duration // until when the others are believed to have a target of targetDelay
	hungry  time.Duration // for how long the queue was too long, and the window small
	least   time.Duration // of the queue in that time
	most    time.Duration
}

// goal returns the target for the present window.
func (c *congestion) goal(m measure) time.Duration {
	if m.now < c.target.pressed {
		return targetDelay
	}
	octaves := math.Log2(c.window / (smallWindow * c.packet))
	limit := float64(c.target.limit) * max(1-octaves*limitSlope, leastLimit)
	return time.Duration(min(limit, float64(targetDelay)*math.Exp2(-octaves/targetHalves)))
}

// overflowed records that a queue of this length has lost packets.
func (t *target) overflowed(queue time.Duration, m measure) {
	if t.overflow == 0 || queue < t.overflow/2 {
		t.overflow = queue
	}
	t.lost, t.floor, t.pressed = m.now, m.floor, 0
	t.adjust(m)
}

// adjust fits the target to the queue, as far as that is known. All flows that share a queue see roughly how long it
// gets; the steps are so large that they still arrive at the same target.
func (t *target) adjust(m measure) {
	if t.overflow == 0 {
		return
	}
	if m.now-t.lost > forgetOverflow {
		t.overflow, t.limit = 0, targetDelay
		return
	}
	// A delay that counted as part of the path may turn out to have been a queue.
	if down := int32(t.floor - m.floor); down > 0 {
		t.overflow += time.Duration(down) * time.Microsecond
	}
	t.floor = m.floor
	t.overflow = max(t.overflow, m.queue)
	t.limit = targetDelay
	for t.limit > lowestTarget && t.limit > t.overflow {
		t.limit /= targetStep
	}
}

// starve records a round trip that went by with a small window, because others keep the queue longer than
// we think right. If they neither let it overflow nor have it grow and shrink, as TCP does, they are of our
// kind, with the target of BEP 29, and for a while it is ours too.
func (t *target) starve(c *congestion, m measure) {
	if c.window > 16*smallWindow*c.packet {
		t.hungry = 0
		return
	}
	if t.hungry == 0 {
		t.least, t.most = c.round.least, 0
	}
	t.least, t.most = min(t.least, c.round.least), max(t.most, c.round.most)
	if c.round.least > min(c.goal(m), targetDelay/3) {
		t.hungry += m.now - c.round.began
	}
	full := fullQueue
	if t.overflow != 0 {
		full = min(full, t.overflow*7/8)
	}
	if t.hungry > hunger {
		if t.most < full && t.least > t.most/2 {
			*t = target{limit: targetDelay, pressed: m.now + pressedFor}
		}
		t.hungry = 0
	}
}
