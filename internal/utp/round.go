package utp

import "time"

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

const recentSpan = 10 * time.Second

// recentMost is the most that something was in the last 10 to 20 seconds.
type recentMost struct {
	began         time.Duration
	current, last float64
}

func (r *recentMost) sample(v float64, now time.Duration) {
	if now-r.began >= recentSpan {
		r.began, r.last, r.current = now, r.current, 0
	}
	r.current = max(r.current, v)
}

func (r *recentMost) value() float64 { return max(r.current, r.last) }
