package utp

import "time"

const (
	minTimeout     = 500 * time.Millisecond
	firstTimeout   = time.Second // before anything was measured (BEP 29)
	longestTimeout = time.Minute
)

// roundTrip estimates the time from a packet to its acknowledgement.
type roundTrip struct {
	smoothed, deviation time.Duration // 0 before the first sample
	latest              time.Duration
	lowest              lowest // in microseconds
}

func (r *roundTrip) sample(d, now time.Duration) {
	d = max(d, time.Microsecond)
	r.latest = d
	r.lowest.add(uint32(min(d/time.Microsecond, 1<<30)), now)
	if r.smoothed == 0 {
		r.smoothed, r.deviation = d, d/2
		return
	}
	off := r.smoothed - d
	r.deviation += (max(off, -off) - r.deviation) / 4
	r.smoothed += (d - r.smoothed) / 8
}

// base returns the shortest recent round trip: the one without a queue.
func (r *roundTrip) base() time.Duration {
	if !r.lowest.known {
		return 0
	}
	return time.Duration(r.lowest.value()) * time.Microsecond
}

// timeout returns how long to wait for an acknowledgement after so many time-outs.
func (r *roundTrip) timeout(before int) time.Duration {
	d := firstTimeout
	if r.smoothed != 0 {
		d = max(minTimeout, r.smoothed+4*r.deviation)
	}
	return min(d<<min(before, 10), longestTimeout)
}

// probeTimeout is how long after the last packet to send another if nothing was acknowledged.
func (r *roundTrip) probeTimeout() time.Duration {
	if r.smoothed == 0 {
		return firstTimeout
	}
	return max(2*r.smoothed, r.smoothed+4*r.deviation) + ackDelay
}
