package utp

import (
	"math/bits"
	"time"
)

// acknowledge takes in what a packet says about those that we sent.
func (e *endpoint) acknowledge(h *packet, now time.Duration) {
	o := &e.out
	e.corked = false
	a := arrivals{now: now}
	flight := o.underway
	if !before(h.ack, o.una) {
		for seq := o.una; !before(h.ack, seq); seq++ {
			e.arrived(seq, &a)
		}
	}
	if h.ext.kind != 0 && !before(h.ack, o.una-1) {
		for bit, mask := range h.ext.masks() {
			e.arrivedEarly(h.ack+2+uint16(bit), mask, &a)
		}
	}
	if a.lie {
		e.abort(errNotSent)
		return
	}
	// An older packet may have been overtaken; its window is past.
	if !before(h.ack, o.una-1) && (a.packets > 0 || int32(h.stamp-e.windowSeen) >= 0) {
		e.window, e.windowSeen = int(min(h.window, 1<<30)), h.stamp
		if e.window > 0 {
			e.loss.persists = 0
		}
	}
	o.advance()
	if a.packets == 0 {
		return
	}
	if a.late && e.loss.timeouts > 0 {
		o.revive(now)
	}
	e.loss.timeouts = 0
	e.loss.probed = false
	e.loss.progress = now
	if e.timers.linger != 0 {
		e.timers.linger = min(now+lingerFor, e.timers.lingerEnd)
	}
	if a.sampled {
		e.rtt.sample(now-a.newestSent, now)
	}
	e.wait.sample(h.diff)
	m := e.measure(now)
	m.bytes, m.packets, m.newest, m.flight, m.limited = a.bytes, a.packets, a.newest, flight, e.limited
	e.limited = false
	e.cong.acknowledged(m)
	if o.unacknowledged() > 0 && e.loss.latest[0] != 0 {
		e.detectLosses(m)
	} else {
		e.timers.reorder = 0
	}
	e.timers.retransmit = 0
	if o.unacknowledged() > 0 {
		e.timers.retransmit = now + e.rtt.timeout(0)
	}
}

// arrivals is what one packet acknowledges.
type arrivals struct {
	now            time.Duration
	packets, bytes int
	newest         uint32        // transmission
	newestSent     time.Duration // when that was
	sampled        bool          // it was sent only once, so it is known what was acknowledged
	late           bool          // a packet that counted as lost has arrived after all
	lie            bool          // it cannot have got one of them
}

// arrivedEarly records what a mask says of the packets from seq on.
func (e *endpoint) arrivedEarly(seq uint16, mask []byte, a *arrivals) {
	for i, b := range mask {
		for ; b != 0; b &= b - 1 {
			s := seq + uint16(8*i+bits.TrailingZeros8(b))
			if !before(s, e.out.una) && before(s, e.out.nxt) {
				e.arrived(s, a)
			}
		}
	}
}

// arrived records that a packet was acknowledged.
func (e *endpoint) arrived(seq uint16, a *arrivals) {
	p := e.out.at(seq)
	switch {
	case p.status == arrived:
		return
	case p.sends == 0:
		a.lie = true
		return
	}
	if before(e.loss.furthest, seq) {
		e.loss.furthest = seq
	}
	again := p.sends > 1
	if p.status == missing || again && a.now-p.sent < e.rtt.base()*3/4 {
		// It was not sent again, or so soon before that this answers the first time: it was late, not lost.
		// Otherwise than after a time-out, that is believed a few times, and each makes us wait longer another time: one who lies could
		// say so whenever losses were counted.
		switch {
		case e.loss.timeouts > 0:
			e.cong.mistaken()
		case !a.late && e.loss.patience < mostPatience:
			e.loss.patience++
			e.cong.mistaken()
		}
		a.late = true
	} else {
		if p.status == underway {
			e.loss.arrived(p.order)
		}
		if a.packets == 0 || int32(p.order-a.newest) > 0 {
			a.newest, a.newestSent, a.sampled = p.order, p.sent, !again
		}
	}
	switch {
	case p.probe && again:
		e.mtu.unknown(a.now) // the tail was sent again, perhaps in fragments
	case p.probe:
		e.mtu.arrived(int(p.size), a.now)
		e.cong.packet = float64(e.mtu.size)
	}
	a.packets++
	a.bytes += p.payload()
	e.out.arrive(p)
}

// measure returns the present knowledge of the path.
func (e *endpoint) measure(now time.Duration) measure {
	m := measure{now: now, next: e.out.order, base: e.rtt.base(), latest: e.rtt.latest, floor: e.wait.ours.value()}
	// The wait in a queue on the way there is part of the round trip, too. The difference of two clocks may jump; a
	// single clock does not.
	m.queue = min(e.wait.queueing(), max(e.rtt.latest-m.base, 0))
	return m
}
