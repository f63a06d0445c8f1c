package utp

import (
	"math"
	"time"
)

const (
	gainBytes     = 3000 // that the window grows by in a round trip
	gainWindow    = 64 << 10
	initialWindow = 10 // packets
	smallWindow   = 2  // packets that may always be under way
	maxWindow     = 16 << 20
	steepest      = 25 * time.Millisecond // a queue this far beyond its target shrinks the window at the full rate

	// Loss without a queue is not congestion but noise on the line, up to this fraction of all packets.
	tolerableLoss  = 0.02
	tolerableCount = 3 // losses that are no more than bad luck
)

// congestion decides how much may be under way. It is LEDBAT (RFC 6817): the window grows while packets wait in
// queues for less than a target, and shrinks while they wait longer, so that those in a hurry find the queue short.
// These are the rules for what the RFC leaves open:
//
//   - The target depends on the window: see target. Above it the window shrinks by a fraction of itself,
//     below it grows by an amount. So flows that share a queue come to have the same window, whichever was
//     there first.
//   - A loss is congestion if packets wait in a queue, or if more than 2% of them are lost. Then the window
//     halves, at most once a round trip. Any other loss is noise on the line: it is repaired, and no more.
//   - While the queue is empty no other flow makes use of the path, and the window grows faster: most of all
//     up to what the path was seen to carry recently.
//   - Beside a flow that relies on losses, in a queue too short for a target, the window hardly grows: see rivals.
//   - See slowStart for the first growth, and slowdown for how the delay of an empty queue is found.
type congestion struct {
	packet float64 // bytes of a full packet
	window float64
	target target
	start  slowStart
	down   slowdown
	round  round
	pipe   recentMost // bytes that the path carried in a round trip without a queue
	rivals rivals

	reduced   uint32  // transmissions up to this one have been answered for
	yielded   bool    // the window was shrunk for the delay of the last round trip
	undo      float64 // the window before the last reduction; 0 if that was taken back
	undoUntil float64 // likewise, where slow start would have ended
}

func newCongestion(packet int) congestion {
	c := congestion{packet: float64(packet), target: target{limit: targetDelay}}
	c.window = initialWindow * c.packet
	c.start.begin(math.Inf(1))
	return c
}

// measure holds what an acknowledgement says about the path.
type measure struct {
	now     time.Duration
	bytes   int           // acknowledged by it
	packets int           // acknowledged by it
	newest  uint32        // transmission acknowledged
	next    uint32        // transmission
	queue   time.Duration // how long packets wait
	floor   uint32        // the delay that is taken for that of an empty queue
	latest  time.Duration // round trip
	base    time.Duration // round trip without a queue
	flight  int           // under way, with what was just acknowledged
	limited bool          // the window was full
}

// allowed is how many bytes may be under way.
func (c *congestion) allowed() int {
	if c.down.active() {
		return int(min(c.window, c.down.cap))
	}
	return int(c.window)
}

// rate is how fast to send, in bytes a second; 0 is at once.
func (c *congestion) rate(smoothed time.Duration) float64 {
	if smoothed == 0 {
		return 0
	}
	gain := 1.25
	if c.start.active() {
		gain = 2
	}
	return gain * float64(c.allowed()) / smoothed.Seconds()
}

// emptyQueue returns the longest wait that still counts as noise.
func emptyQueue(base time.Duration) time.Duration {
	return min(max(base/10, time.Millisecond), 5*time.Millisecond)
}

// shortQueue returns the shortest wait at which a queue is assumed to lose packets.
func shortQueue(base time.Duration) time.Duration {
	return min(max(base/25, time.Millisecond), 5*time.Millisecond)
}

// acknowledged grows or shrinks the window.
func (c *congestion) acknowledged(m measure) {
	ended := c.round.acknowledged(m)
	if ended {
		c.pipe.sample(c.round.rate(m.now)*m.base.Seconds(), m.now)
	}
	c.target.adjust(m)
	c.down.waited = min(c.down.waited, m.queue)
	if c.down.active() {
		c.down.acknowledged(m)
		if ended {
			c.round.begin(m)
		}
		return
	}
	if c.start.active() {
		c.window += c.start.growth(c, m, ended)
	} else {
		c.rivals.acknowledged(m)
		if m.limited && m.queue <= c.goal(m) {
			c.window += c.growth(m) * float64(m.bytes) / c.window
		}
		if ended {
			c.yield(m)
			c.target.starve(c, m)
		}
	}
	c.window = min(max(c.window, smallWindow*c.packet), maxWindow)
	if ended {
		c.round.begin(m)
		if m.next-c.reduced > 1<<30 {
			c.reduced = m.next - 1<<30 // numbers wrap around
		}
		if !c.start.active() {
			c.down.consider(c, m)
		}
	}
}

// growth is how much the window grows in a round trip after slow start.
func (c *congestion) growth(m measure) float64 {
	if c.rivals.present(m.now) {
		return rivalGain * c.packet
	}
	grow := min(gainBytes, c.window/8) * max(1, math.Sqrt(c.window/gainWindow))
	if m.queue > emptyQueue(m.base) {
		return grow
	}
	// With no queue there is room, of which no other makes use.
	switch pipe := c.pipe.value(); {
	case c.window < pipe/2:
		return max(grow, c.window/2)
	case c.window < pipe*0.9:
		return max(grow, c.window/8)
	}
	return max(grow, c.window/32)
}

// yield shrinks the window after a round trip in which no packet was faster than the target. The next round trip
// shows the effect.
func (c *congestion) yield(m measure) {
	goal := c.goal(m)
	if c.round.least <= goal || c.yielded {
		c.yielded = false
		return
	}
	c.yielded = true
	excess := float64(c.round.least-goal) / float64(max(goal, steepest))
	c.window -= c.window * min(excess, 0.5)
}

// lost halves the window if packets were lost to congestion. last is the latest transmission among them.
func (c *congestion) lost(m measure, packets int, last uint32) {
	c.round.losses += packets
	queued := m.queue > shortQueue(m.base)
	if !queued && !c.round.lossy() {
		return
	}
	if int32(last-c.reduced) <= 0 {
		return
	}
	if queued {
		queue := max(m.queue, c.round.most, c.round.mostBefore) // it was lost a round trip ago
		if !c.start.active() {
			c.rivals.lost(queue, m)
		}
		c.target.overflowed(queue, m)
	}
	c.remember(m)
	c.start.end()
	c.window = max(c.window/2, smallWindow*c.packet)
}

// remember saves the state that a loss is about to change.
func (c *congestion) remember(m measure) {
	c.reduced = m.next - 1
	c.undo, c.undoUntil = c.window, c.start.until
}

// mistaken undoes the last reduction, because nothing was lost: a packet only came late.
func (c *congestion) mistaken() {
	if c.undo != 0 {
		c.window, c.undo = max(c.window, c.undo), 0
		c.start.begin(c.undoUntil)
	}
}

// timedOut starts again from the smallest window.
func (c *congestion) timedOut(m measure) {
	c.remember(m)
	c.start.begin(max(c.window/2, smallWindow*c.packet))
	c.window = smallWindow * c.packet
	c.down.stop()
}

// idled shrinks the window after nothing was sent for so many time-outs, because it no longer says anything about the
// path.
func (c *congestion) idled(periods int) {
	least := initialWindow * c.packet
	if c.window <= least {
		return
	}
	c.start.begin(max(c.window*3/4, least))
	c.window = max(c.window/math.Exp2(float64(min(periods, 30))), least)
}
