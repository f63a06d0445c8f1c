package utp

import (
	"encoding/binary"
	"errors"
	"syscall"
	"time"
)

const (
	maxRun      = 64    // packets that are sent at once
	maxRunBytes = 65000 // and bytes
	companyFrom = 8     // packets under way, from which on a packet that is not full waits for more
	corkedBytes = 32 << 10

	companyBytes = 128 << 10 // likewise
)

// sender sends packets to the other end.
type sender interface {
	// send sends p as packets of segment bytes, and what is left in the last one. It returns how many bytes
	// went out, which is less than all without an error if there is no room for now.
	send(p []byte, segment int) (n int, err error)
	// probe sends a packet that may not be fragmented.
	probe(p []byte) error
}

// transmit sends the packets that may be sent now.
func (e *endpoint) transmit(now time.Duration, s sender) {
	if e.acks.reset {
		e.acks.reset = false
		e.sendBare(typeReset, now, s)
	}
	switch e.state {
	case closed:
		return
	case dialing:
		if e.timers.synSent == 0 {
			e.sendSyn(now, s)
		}
		return
	case answering:
		if e.acks.now {
			e.timers.synSent = now
			e.timers.sends++
		}
	case connected:
		e.sendPackets(now, s)
	}
	if e.acks.now || e.felt != 0 {
		e.sendBare(typeState, now, s)
	}
}

func (e *endpoint) sendSyn(now time.Duration, s sender) {
	t := &e.timers
	t.synSent = max(now, 1)
	t.handshake = now + synTimeout<<t.sends
	t.sends++
	if err := e.sendBare(typeSyn, now, s); err != nil {
		e.end(err)
	}
}

// header returns the header of all packets that are sent now, except for their type and number.
func (e *endpoint) header(now time.Duration) header {
	e.in.told = e.in.window()
	h := header{id: e.sendID, stamp: e.stamp(now), diff: e.diff, window: uint32(e.in.told), seq: e.out.nxt, ack: e.in.ack}
	e.timers.keepAlive = now + keepAlive
	if e.timers.confirms > 0 {
		e.timers.confirms--
		e.timers.keepAlive = now + firstConfirm<<(confirmations-1-e.timers.confirms)
	}
	return h
}

// sendBare sends a packet without data, with all acknowledgements.
func (e *endpoint) sendBare(kind packetType, now time.Duration, s sender) error {
	h := e.header(now)
	h.kind = kind
	b := e.out.memory.allocate(smallBlock)
	defer e.out.memory.release(b)
	b[1] = 0
	n := headerSize
	switch kind {
	case typeSyn:
		h.id, h.seq = e.recvID, e.synSeq
		said, _ := sayLargest(e.takes, b[1:], b[n:])
		n += said
	case typeState:
		if e.state == answering {
			e.felt = e.takes
		}
		said, next := sayLargest(e.felt, b[1:], b[n:])
		e.felt = 0
		n += said
		n += e.selective(next, b[n:min(int(e.mtu.size), smallBlock)])
		e.acks.sent()
	}
	h.put(b, b[1])
	_, err := s.send(b[:n], 0)
	return err
}

// sayLargest writes to p how large a packet is that we take or have got, and to kind what the first extension
// is. It returns how much of p it used, and where the type of the next extension stands.
func sayLargest(size uint16, kind, p []byte) (n int, next []byte) {
	const bits, largest = 2 + 8, 2 + 2
	if size == 0 {
		return 0, kind
	}
	clear(p[:bits+largest])
	kind[0] = extensionBits
	p[0], p[1] = extensionLargest, bits-2
	next = p[bits:]
	next[1] = largest - 2
	binary.BigEndian.PutUint16(next[2:], size)
	return bits + largest, next
}

// selective writes to p what arrived early, and to kind what the first extension is. It returns how much of
// p it used.
func (e *endpoint) selective(kind, p []byte) (n int) {
	kind[0] = 0
	for first := 0; n+2+maxMask <= len(p); first += 8 * maxMask {
		m := e.in.mask(p[n+2:n+2+maxMask], first)
		if m == 0 {
			break
		}
		kind[0] = extensionMore
		if first == 0 {
			kind[0] = extensionSelective
		}
		kind, p[n+1] = p[n:], byte(m)
		kind[0] = 0
		n += 2 + m
	}
	return n
}

// sendPackets sends data as far as the windows allow, lost packets first.
func (e *endpoint) sendPackets(now time.Duration, s sender) {
	o := &e.out
	e.timers.pace = 0
	if o.empty() {
		return
	}
	e.feel(now, s)
	rate := e.cong.rate(e.rtt.smoothed)
	e.pace.refill(rate, int(e.mtu.size), now)
	if e.loss.tail {
		e.loss.tail = false
		if seq, ok := o.lastUnderway(); ok && !e.sendRun(seq, 1, now, s) {
			return
		}
	}
	for {
		seq, again := o.nextMissing()
		if !again {
			seq = o.nxt
		}
		if seq == o.end {
			return
		}
		p := o.at(seq)
		room, need := e.cong.allowed()-o.underway, p.payload()
		// What is withheld keeps its room: an end that has filled all of it with later packets may take no earlier one any more.
		theirs := e.window - o.underway - o.kept
		switch {
		case e.loss.force:
			room, theirs = need, need // a time-out has one packet sent, whatever the windows say
		case need > theirs && (o.underway > 0 || e.window == 0) && need > 0:
			if o.underway == 0 && e.timers.retransmit == 0 {
				e.timers.retransmit = now + e.rtt.timeout(0) // ask whether there is room again
			}
			return
		case o.underway == 0:
			theirs = max(theirs, need)
			room = max(room, need)
		}
		switch {
		case !again && (e.corked && o.waiting < min(corkedBytes, o.underway/4) || e.waitsForCompany(seq)):
			return
		case need > room:
			e.limited = true
			return
		case e.pace.bytes <= 0:
			e.limited = true
			e.timers.pace = e.pace.ready(rate, now)
			return
		}
		if !again && !e.loss.force && e.withhold(now) {
			continue
		}
		n := o.run(seq, min(room, theirs, max(int(e.pace.bytes), 2*int(e.mtu.size))))
		if !again && n > 1 && e.waitsForCompany(seq+uint16(n)-1) {
			n--
		}
		e.loss.force = false
		if !e.sendRun(seq, n, now, s) {
			return
		}
	}
}

// waitsForCompany reports whether a packet that was never sent should wait until it is full: while many are
// under way, the next acknowledgement is near.
func (e *endpoint) waitsForCompany(seq uint16) bool {
	o := &e.out
	return seq == o.end-1 && o.last() != nil && o.underway >= min(companyFrom*int(e.mtu.size), companyBytes)
}

// run is how many packets from seq on may be sent as one run, of up to limit bytes in all, but at least one.
func (o *outgoing) run(seq uint16, limit int) (n int) {
	first := o.at(seq)
	end := o.nxt
	if first.status == waiting {
		end = o.end
	}
	if first.probe {
		return 1
	}
	bytes, size := int(first.size), int(first.size)
	limit -= first.payload()
	for n = 1; n < maxRun && seq+uint16(n) != end; n++ {
		p := o.at(seq + uint16(n))
		if p.status != first.status || p.block != first.block || int(p.at) != int(first.at)+n*size ||
			p.size > first.size || p.probe || p.payload() > limit || bytes+int(p.size) > maxRunBytes {
			break
		}
		bytes += int(p.size)
		limit -= p.payload()
		if p.size < first.size {
			n++
			break
		}
	}
	return n
}

// sendRun sends n packets that lie one behind the other. It reports whether more may be sent.
func (e *endpoint) sendRun(seq uint16, n int, now time.Duration, s sender) bool {
	o := &e.out
	first := o.at(seq)
	last := o.at(seq + uint16(n) - 1)
	h := e.header(now)
	for i := range n {
		p := o.at(seq + uint16(i))
		h.seq, h.kind = seq+uint16(i), typeData
		if p.fin {
			h.kind = typeFin
		}
		h.put(p.bytes(), 0)
	}
	b := first.block.b[first.at : last.at+uint32(last.size)]
	idle := o.una == o.nxt
	var sent int
	var err error
	if first.probe && first.sends == 0 {
		sent, err = e.sendProbe(first, now, s)
	} else {
		sent, err = s.send(b, int(first.size))
	}
	if err != nil {
		sent = len(b) // treated as lost on the way
	}
	for i := 0; i < n && i*int(first.size) < sent; i++ {
		p := o.at(seq + uint16(i))
		e.pace.bytes -= float64(p.size)
		o.sent(p, now)
	}
	if sent > 0 {
		e.loss.lastSent = now
		if e.in.ahead == 0 {
			e.acks.sent()
		}
		if idle {
			e.loss.progress = now
		}
		if idle || e.timers.retransmit == 0 {
			e.timers.retransmit = now + e.rtt.timeout(e.loss.timeouts)
		}
	}
	if sent < len(b) {
		e.timers.pace = now + stallPause
	}
	return err == nil && sent == len(b)
}

// feel tries whether packets larger than those of Ethernet pass.
func (e *endpoint) feel(now time.Duration, s sender) {
	for size := e.mtu.feeler(now); size != 0; size = e.mtu.feeler(now) {
		b := e.out.memory.allocate(largeBlock)
		clear(b[:size])
		h := e.header(now)
		h.kind = typeState
		h.put(b, 0)
		err := s.probe(b[:size])
		e.out.memory.release(b)
		switch {
		case errors.Is(err, errors.ErrUnsupported):
			e.mtu.stop()
		case errors.Is(err, syscall.EMSGSIZE):
			e.mtu.refused()
		default:
			e.mtu.feels(size, e.rtt.probeTimeout(), now)
		}
	}
}

// sendProbe sends a packet that probes the path's MTU. If the system cannot do that, the packet is sent like any
// other.
func (e *endpoint) sendProbe(p *outPacket, now time.Duration, s sender) (sent int, err error) {
	err = s.probe(p.bytes())
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		e.mtu.stop()
	case errors.Is(err, syscall.EMSGSIZE):
		e.mtu.tooLarge(int(p.size), now)
	default:
		return int(p.size), err
	}
	p.probe = false
	return s.send(p.bytes(), 0)
}
