package utp

import (
	"math"
	"time"
)

const (
	targetDelay   = 100 * time.Millisecond // that our packets may add to a queue (BEP 29)
	lowestTarget  = targetDelay / 16
	gainBytes     = 3000 // that the window grows by in a round trip
	gainWindow    = 64 << 10
	initialWindow = 10 // packets
	smallWindow   = 2  // packets that may always be under way
	maxWindow     = 16 << 20
	steepest      = 25 * time.Millisecond // a queue this far beyond its target shrinks the window at the full rate

	// Loss without a queue is not congestion but noise on the line, up to this fraction of all packets.
	tolerableLoss  = 0.02
	tolerableCount = 3 // losses that are no more than bad luck

	forgetOverflow = 5 * time.Minute
	goalSlope      = 0.05             // of the target, for each doubling of the window
	hunger         = 10 * time.Second // until it is believed that others have another target
	pressedFor     = time.Minute
)

// congestion says how much may be under way. It is LEDBAT (RFC 6817): the window grows while packets wait in queues for less than a target, and
// shrinks when it is more, so that whoever is in a hurry finds the queue short. With what that leaves open:
//
//   - Above the target the window shrinks by a fraction of itself, below it grows by an amount. So all who share a link come to have the
//     same window, whoever was there first. (LEDBAT++ does so too.)
//   - A loss is congestion if packets wait in a queue, or if more than 2% are lost. Then the window halves, once a round trip.
//     Any other loss is the line's, and only sent again.
//   - A queue that overflows before it is as long as the target is never left by delay alone. So the target becomes at most
//     3/4 of the queue that overflowed, in steps that all who share it agree on.
//   - After a loss the window comes back quickly to what the path was seen to carry with an empty queue.
//   - See slowStart for the first growth, and slowdown for how the delay of an empty queue is found.
type congestion struct {
	packet float64 // bytes of a full packet
	window float64
	target time.Duration
	start  slowStart
	down   slowdown
	round  round
	pipe   pipe

	overflow   time.Duration // how long the queue gets before it loses packets; 0 if it did not
	floor      uint32        // by which that was measured
	pressed    time.Duration // until when others are believed to mean the queue to be as long as it is
	hungry     time.Duration // for how long the queue was too long, and the window as small as it gets
	peak       time.Duration // of the queue in that time
	overflowed time.Duration // when that was
	reduced    uint32        // transmissions up to this one have been answered for
	yielded    bool          // the window was shrunk for the delay of the last round trip
	undo       float64       // the window before the last reduction
}

func newCongestion(packet int) congestion {
	c := congestion{packet: float64(packet), target: targetDelay}
	c.window = initialWindow * c.packet
	c.start.begin(math.Inf(1))
	return c
}

// measure is what an acknowledgement says about the path.
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

// emptyQueue is the longest wait that is still taken for noise.
func emptyQueue(base time.Duration) time.Duration {
	return min(max(base/10, time.Millisecond), 5*time.Millisecond)
}

// acknowledged grows or shrinks the window.
func (c *congestion) acknowledged(m measure) {
	ended := c.round.acknowledged(m)
	if ended {
		c.pipe.sample(c.round.rate(m.now)*m.base.Seconds(), m.now)
	}
	c.adjustTarget(m)
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
		if m.limited && m.queue <= c.goal(m.now) {
			c.window += c.growth(m) * float64(m.bytes) / c.window
		}
		if ended {
			c.yield(m)
			c.starve(m)
		}
	}
	c.window = min(max(c.window, smallWindow*c.packet), maxWindow)
	if ended {
		c.round.begin(m)
		if !c.start.active() {
			c.down.consider(c, m)
		}
	}
}

// goal is the wait that this window may cause. The larger it is, the less: a large window needs no long queue to fill the path. And
// of two who share a queue, the one with the smaller window grows while the other shrinks.
func (c *congestion) goal(now time.Duration) time.Duration {
	octaves := math.Log2(c.window / (smallWindow * c.packet))
	goal := float64(c.target) * max(1-octaves*goalSlope, 0.5)
	if now >= c.pressed {
		goal = min(goal, float64(targetDelay)*math.Exp2(-octaves/3))
	}
	return time.Duration(goal)
}

// growth is how much the window grows in a round trip after slow start.
func (c *congestion) growth(m measure) float64 {
	grow := min(gainBytes, c.window/8) * max(1, math.Sqrt(c.window/gainWindow))
	if m.queue > emptyQueue(m.base) {
		return grow
	}
	// With no queue there is room, of which no other makes use.
	switch pipe := c.pipe.bytes(); {
	case c.window < pipe/2:
		return max(grow, c.window/2)
	case c.window < pipe*0.9:
		return max(grow, c.window/8)
	}
	return max(grow, c.window/32)
}

// yield shrinks the window after a round trip in which no packet was faster than the target. The next
// round trip shows what became of it.
func (c *congestion) yield(m measure) {
	goal := c.goal(m.now)
	if c.round.least <= goal || c.yielded {
		c.yielded = false
		return
	}
	c.yielded = true
	excess := float64(c.round.least-goal) / float64(max(goal, steepest))
	c.window -= c.window * min(excess, 0.5)
}

// lost halves the window if packets of these bytes were lost to congestion. last is the latest transmission among them.
func (c *congestion) lost(m measure, packets int, last uint32) {
	c.round.losses += packets
	queued := m.queue > emptyQueue(m.base)
	if !queued && !c.round.lossy() {
		return
	}
	if int32(last-c.reduced) <= 0 {
		return
	}
	if queued {
		// It was lost a round trip ago.
		if most := max(m.queue, c.round.most, c.round.mostBefore); c.overflow == 0 || most < c.overflow/2 {
			c.overflow = most
		}
		c.overflowed, c.floor, c.pressed = m.now, m.floor, 0
		c.adjustTarget(m)
	}
	c.reduced = m.next - 1
	c.undo = c.window
	c.start.end()
	c.window = max(c.window/2, smallWindow*c.packet)
}

// mistaken takes the last reduction back: nothing was lost, it only came late.
func (c *congestion) mistaken() {
	if c.undo != 0 {
		c.window, c.undo = max(c.window, c.undo), 0
		c.start.end()
	}
}

// adjustTarget has the target fit the queue, as far as that is known. All who share a queue see how long it gets,
// more or less; the steps are so large that they still come to the same target.
func (c *congestion) adjustTarget(m measure) {
	if c.overflow == 0 {
		return
	}
	if m.now-c.overflowed > forgetOverflow {
		c.overflow, c.target = 0, targetDelay
		return
	}
	// What was taken for a part of the path may turn out to have been queue.
	if down := int32(c.floor - m.floor); down > 0 {
		c.overflow += time.Duration(down) * time.Microsecond
	}
	c.floor = m.floor
	c.overflow = max(c.overflow, m.queue)
	c.target = targetDelay
	for c.target > lowestTarget && c.target > c.overflow*3/4 {
		c.target /= 4
	}
}

// starve records a round trip that goes by with the smallest window, because others keep the queue longer than we think right. If they
// do not let it overflow, as TCP would, they do not know how long it gets, and we should not either.
func (c *congestion) starve(m measure) {
	if c.window > 4*smallWindow*c.packet {
		c.hungry, c.peak = 0, 0
		return
	}
	if c.round.least > c.goal(m.now) {
		c.hungry += m.now - c.round.began
		c.peak = max(c.peak, c.round.most)
	}
	full := targetDelay * 3 / 2
	if c.overflow != 0 {
		full = min(full, c.overflow*7/8)
	}
	if c.hungry > hunger && c.peak < full {
		c.pressed = m.now + pressedFor
		c.overflow, c.target = 0, targetDelay
		c.hungry, c.peak = 0, 0
	}
}

// timedOut starts again from the smallest window.
func (c *congestion) timedOut(m measure) {
	c.undo = c.window
	c.start.begin(max(c.window/2, smallWindow*c.packet))
	c.window = smallWindow * c.packet
	c.reduced = m.next - 1
	c.down.stop()
}

// idled shrinks the window of one that has sent nothing for so many time-outs: it no longer says anything about the path.
func (c *congestion) idled(periods int) {
	least := initialWindow * c.packet
	if c.window <= least {
		return
	}
	c.start.begin(max(c.window*3/4, least))
	c.window = max(c.window/math.Exp2(float64(min(periods, 30))), least)
}

// round counts what happens from one moment to when it is known to have reached the other end.
type round struct {
	end     uint32 // the transmission whose acknowledgement ends it
	began   time.Duration
	least   time.Duration // that packets waited
	most    time.Duration
	bytes   int // acknowledged
	packets int
	losses  int
	// Of the round before.
	mostBefore                  time.Duration
	packetsBefore, lossesBefore int
}

func (r *round) acknowledged(m measure) (ended bool) {
	if r.packets == 0 || m.queue < r.least {
		r.least = m.queue
	}
	r.most = max(r.most, m.queue)
	r.bytes += m.bytes
	r.packets += m.packets
	return int32(m.newest-r.end) >= 0
}

func (r *round) begin(m measure) {
	*r = round{end: m.next, began: m.now, mostBefore: r.most, packetsBefore: r.packets, lossesBefore: r.losses}
}

func (r *round) rate(now time.Duration) float64 {
	if now <= r.began {
		return 0
	}
	return float64(r.bytes) / (now - r.began).Seconds()
}

func (r *round) lossy() bool {
	losses := r.losses + r.lossesBefore
	return losses >= tolerableCount && float64(losses) > tolerableLoss*float64(r.packets+r.packetsBefore+losses)
}

const pipeSpan = 10 * time.Second

// pipe is the most that the path carried in a round trip without a queue, of the last 10 to 20 seconds.
type pipe struct {
	began         time.Duration
	current, last float64
}

func (p *pipe) sample(bytes float64, now time.Duration) {
	if now-p.began >= pipeSpan {
		p.began, p.last, p.current = now, p.current, 0
	}
	p.current = max(p.current, bytes)
}

func (p *pipe) bytes() float64 { return max(p.current, p.last) }
