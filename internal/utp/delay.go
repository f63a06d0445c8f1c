package utp

import "time"

const (
	lowestSpan    = time.Minute // of one entry of a lowest
	lowestEntries = 13
)

// lowest is the least of the values of the last 13 minutes. Values lie on a circle of 32 bits, of which those
// of 13 minutes fill less than half.
type lowest struct {
	known   bool
	current uint8                 // the entry of this minute
	began   time.Duration         // of this minute
	entries [lowestEntries]uint32 // the least of each minute
	least   uint32                // of all entries
}

func (l *lowest) add(v uint32, now time.Duration) {
	if !l.known {
		l.known, l.began, l.least = true, now, v
		for i := range l.entries {
			l.entries[i] = v
		}
		return
	}
	for steps := 0; now-l.began >= lowestSpan; steps++ {
		if steps == lowestEntries {
			l.began = now
			break
		}
		l.began += lowestSpan
		l.current = (l.current + 1) % lowestEntries
		l.entries[l.current] = v
		l.least = v
		for _, e := range l.entries {
			if int32(e-l.least) < 0 {
				l.least = e
			}
		}
	}
	if int32(v-l.entries[l.current]) < 0 {
		l.entries[l.current] = v
	}
	if int32(v-l.least) < 0 {
		l.least = v
	}
}

func (l *lowest) value() uint32 { return l.least }

// shift adds d to all recorded values.
func (l *lowest) shift(d uint32) {
	for i := range l.entries {
		l.entries[i] += d
	}
	l.least += d
}

const (
	recentDelays = 4
	// maxDrift is how fast one clock may run ahead of another, mostDrift how much of that may show at once.
	// More is no drift.
	maxDrift  = 0.0005
	mostDrift = 10 * time.Millisecond
	noDelay   = 1<<31 - 1 // sent by some ends that have not measured a delay
)

// delays measures how long our packets wait in queues on their way. The two clocks need not agree: what
// counts is how much longer a packet took than the fastest recent one.
type delays struct {
	ours    lowest        // of our packets, as measured by the other end
	theirs  lowest        // of theirs, as measured here
	drift   time.Duration // that may not have shown yet
	heardAt time.Duration
	recent  [recentDelays]uint32
	next    uint8
	count   uint8
}

// heard records how much later than its stamp a packet came. If that gets less than it ever was,
// it may be because the other clock runs faster, which makes our packets seem slower by as much.
func (d *delays) heard(diff uint32, now time.Duration) {
	if !d.theirs.known {
		d.heardAt = now
	}
	d.drift = min(d.drift+time.Duration(float64(now-d.heardAt)*maxDrift), mostDrift)
	d.heardAt = now
	known, before := d.theirs.known, d.theirs.value()
	d.theirs.add(diff, now)
	less := time.Duration(int32(before-d.theirs.value())) * time.Microsecond
	if known && d.ours.known && less > 0 {
		less = min(less, d.drift)
		d.drift -= less
		d.ours.shift(uint32(less / time.Microsecond))
	}
}

// told records the delay that the other end measured of our packet that it got last.
func (d *delays) told(diff uint32, now time.Duration) {
	if diff != 0 && diff != noDelay {
		d.ours.add(diff, now)
	}
}

// base returns the time to the other end and back without a queue on the way. The difference of the clocks cancels
// out in the sum.
func (d *delays) base() time.Duration {
	if !d.ours.known || !d.theirs.known {
		return 0
	}
	return time.Duration(max(int32(d.ours.value()+d.theirs.value()), 1)) * time.Microsecond
}

// sample records the delay that the other end measured of a packet that it has just acknowledged.
func (d *delays) sample(diff uint32) {
	if diff == 0 || diff == noDelay {
		return
	}
	d.recent[d.next] = diff
	d.next = (d.next + 1) % recentDelays
	d.count = min(d.count+1, recentDelays)
}

// queueing is how long our packets wait in queues. It is the least of the last few samples, which are noisy.
func (d *delays) queueing() time.Duration {
	if d.count == 0 {
		return 0
	}
	least := d.recent[0]
	for _, v := range d.recent[1:d.count] {
		if int32(v-least) < 0 {
			least = v
		}
	}
	return time.Duration(max(int32(least-d.ours.value()), 0)) * time.Microsecond
}
