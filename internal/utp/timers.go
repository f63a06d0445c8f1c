package utp

import "time"

const (
	synTimeout     = 3 * time.Second
	synSends       = 3 // a SYN is sent again twice
	unconfirmedFor = 21 * time.Second
	keepAlive      = 29 * time.Second
	blackHole      = 2                // time-outs in a row, after which packets of this size may vanish
	giveUp         = 30 * time.Second // after the last acknowledgement, by when libtorrent and libutp have given up, too
	leastTimeouts  = 5                // in a row, before that
	lingerFor      = 30 * time.Second // without any of it being taken
	longestLinger  = 10 * time.Minute // in all
	longestPersist = 5 * time.Second  // between packets to a receiver without room
	stallPause     = time.Millisecond
	firstConfirm   = time.Second // doubles with each
	confirmations  = 5
	closingFor     = time.Second // that the other end's last packets are answered, at least
)

// timers are the times at which something is due, or 0.
type timers struct {
	handshake  time.Duration // the next SYN, or the end of waiting for a confirmation
	synSent    time.Duration // or the answer to one
	sends      int           // of it
	retransmit time.Duration // of what is under way
	reorder    time.Duration // something is lost by then
	pace       time.Duration // something may be sent then
	keepAlive  time.Duration
	confirms   int           // that our end knows of the connection, until something is heard
	linger     time.Duration // the end of waiting for the other end to take more of what was written
	lingerEnd  time.Duration // which is never later
}

// due returns when to call tick, or 0 for never.
func (e *endpoint) due() time.Duration {
	if e.state == closed {
		return 0
	}
	t := &e.timers
	at := t.keepAlive
	for _, d := range [...]time.Duration{t.handshake, t.retransmit, e.probeAt(), t.reorder, t.pace, t.linger, e.acks.at} {
		if d != 0 && d < at {
			at = d
		}
	}
	return at
}

// probeAt is when the tail of what was sent is to be probed, or 0.
func (e *endpoint) probeAt() time.Duration {
	if e.out.underway == 0 && !e.finUnderway() || e.loss.probed || e.loss.timeouts > 0 || e.out.missing > 0 || e.timers.retransmit == 0 {
		return 0
	}
	at := e.loss.lastSent + e.rtt.probeTimeout()
	if at >= e.timers.retransmit {
		return 0
	}
	return at
}

// finUnderway reports whether the end was sent and is not acknowledged.
func (e *endpoint) finUnderway() bool {
	return e.out.finished && e.out.nxt == e.out.end && e.out.una != e.out.end
}

// trim releases memory that an idle connection does not need.
func (e *endpoint) trim() {
	if e.out.empty() {
		e.out.ring = nil
	}
	if e.in.ahead == 0 {
		e.in.ring = nil
	}
	if e.in.ready == 0 {
		e.in.queue, e.in.first = nil, 0
	}
}

// tick acts on the timers that are due.
func (e *endpoint) tick(now time.Duration) {
	if e.state == closed {
		return
	}
	t := &e.timers
	e.corked = false
	past := func(at time.Duration) bool { return at != 0 && at <= now }
	if past(t.handshake) {
		switch {
		case e.state == answering:
			e.end(errTimedOut)
			return
		case t.sends == synSends:
			e.end(errTimedOut)
			return
		}
		t.synSent = 0 // transmit sends it
	}
	if past(t.linger) {
		if e.out.empty() {
			e.end(nil)
		} else {
			e.abort(nil)
		}
		return
	}
	if past(e.acks.at) {
		e.acks.now = true
	}
	if past(t.reorder) {
		e.detectLosses(e.measure(now))
	}
	if past(e.probeAt()) {
		e.loss.probed, e.loss.tail = true, true
	}
	if past(t.retransmit) {
		e.retransmitTimeout(now)
		if e.state == closed {
			return
		}
	}
	if past(t.keepAlive) {
		e.acks.now = true
		e.trim()
	}
}
