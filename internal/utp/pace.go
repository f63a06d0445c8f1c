package utp

import "time"

const (
	burstPackets = 10
	burstTime    = 2 * time.Millisecond
)

// pacer spreads packets over a round trip, because a burst fills queues as a higher rate would. It is a bucket of
// bytes that fills at the rate of sending, and may be overdrawn by one run of packets.
type pacer struct {
	bytes float64
	at    time.Duration // when bytes was right
}

// refill brings the bucket up to now. A rate of 0, in bytes a second, is unknown, and no limit.
func (p *pacer) refill(rate float64, packet int, now time.Duration) {
	depth := max(float64(burstPackets*packet), rate*burstTime.Seconds())
	p.bytes += rate * (now - p.at).Seconds()
	if p.bytes > depth || rate == 0 {
		p.bytes = depth
	}
	p.at = now
}

// ready is when a packet may go out.
func (p *pacer) ready(rate float64, now time.Duration) time.Duration {
	if p.bytes > 0 || rate == 0 {
		return now
	}
	return now + time.Duration(-p.bytes/rate*1e9) + time.Microsecond
}
