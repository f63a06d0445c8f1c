package utp

import "time"

// mostPatience is after how many quarters of a round trip a packet is lost at the latest, if one that was sent later has arrived.
const mostPatience = 4

// lossDetection infers a loss from packets that were sent later and have arrived: three later packets, or one that
// was sent a quarter of a round trip later, or more quarters if the path changes the order (RFC 8985). Transmissions are
// numbered over all packets, so the loss of a retransmission can be detected, too.
type lossDetection struct {
	furthest uint16    // of the packets that arrived
	latest   [3]uint32 // the last three of the transmissions that arrived

	patience int           // how often the path was seen to change the order; if it was, three later packets prove nothing
	lastSent time.Duration // any packet with data
	probed   bool          // the tail was probed since the last acknowledgement
	tail     bool          // the last packet is to be sent again
	force    bool          // one packet is to be sent whatever the windows say
	timeouts int           // in a row
	progress time.Duration // when something was acknowledged last, or first under way, or refused for lack of room
	persists int           // likewise, of a receiver that has no room, but answers
}

// arrived records that a transmission was acknowledged.
func (l *lossDetection) arrived(order uint32) {
	switch {
	case int32(order-l.latest[0]) > 0:
		l.latest = [3]uint32{order, l.latest[0], l.latest[1]}
	case int32(order-l.latest[1]) > 0:
		l.latest[2], l.latest[1] = l.latest[1], order
	case int32(order-l.latest[2]) > 0:
		l.latest[2] = order
	}
}

// detectLosses marks the packets that count as lost, and sets the timer for those that soon will.
func (e *endpoint) detectLosses(m measure) {
	l := &e.loss
	e.timers.reorder = 0
	if e.out.una == e.out.nxt {
		return
	}
	packets, last, found := 0, uint32(0), false
	wait := e.rtt.smoothed
	wait += max(wait*time.Duration(max(l.patience, 1))/4, time.Millisecond)
	// The other end may not report all packets that it has: nothing is known about packets beyond the last one that
	// it reported.
	for seq := e.out.una; before(seq, l.furthest); seq++ {
		p := e.out.at(seq)
		if p.status != underway && p.status != withheld || int32(l.latest[0]-p.order) <= 0 {
			continue
		}
		// Time counts from the packet that arrived: of two sent at once, one may be ahead by luck alone.
		if at := p.sent + wait; (l.patience > 0 || int32(l.latest[2]-p.order) <= 0) && m.now < at {
			if e.timers.reorder == 0 || at < e.timers.reorder {
				e.timers.reorder = at
			}
			continue
		}
		e.out.lose(seq)
		if p.sends == 0 {
			l.force = true // those that follow it may fill the windows
			continue
		}
		if p.probe {
			p.probe = false
			e.mtu.lost(int(p.size), m.now)
			continue // most likely too large, which says nothing about congestion
		}
		packets++
		if !found || int32(p.order-last) > 0 {
			last, found = p.order, true
		}
	}
	if found {
		e.cong.lost(m, packets, last)
	}
}

// retransmitTimeout treats all packets under way as lost. They are sent again, slowly.
func (e *endpoint) retransmitTimeout(now time.Duration) {
	l := &e.loss
	l.probed = false
	l.force = true
	if e.out.una != e.out.nxt && e.out.at(e.out.una).status == withheld {
		// All before it arrived. The other end does not tell of those that come out of order.
		e.out.lose(e.out.una)
		e.timers.retransmit = now + e.rtt.timeout(l.timeouts)
		return
	}
	large, lost := false, false
	for seq := e.out.una; seq != e.out.nxt; seq++ {
		p := e.out.at(seq)
		if p.status != underway {
			continue
		}
		large = large || p.size > e.mtu.smallest
		if p.probe {
			p.probe = false
			e.mtu.lost(int(p.size), now)
		}
		e.out.lose(seq)
		lost = true
	}
	e.timers.retransmit = 0
	if e.window == 0 && e.heard >= l.lastSent {
		// The other end answers, but has no room. It may stay so for any length of time.
		e.timers.retransmit = now + min(e.rtt.timeout(l.persists), longestPersist)
		l.persists++
		if lost {
			e.cong.idled(1) // it may be what was sent that was too much
		}
		l.progress = now
		return
	}
	if l.timeouts++; l.timeouts >= leastTimeouts && now-l.progress >= giveUp {
		e.end(errTimedOut)
		return
	}
	if l.timeouts == 1 {
		e.cong.timedOut(e.measure(now))
	}
	if l.timeouts == blackHole && large {
		e.mtu.vanished(now)
		e.cong.packet = float64(e.mtu.size)
	}
	e.timers.retransmit = now + e.rtt.timeout(l.timeouts)
}
