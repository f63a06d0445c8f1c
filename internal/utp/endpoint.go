package utp

import (
	"syscall"
	"time"
)

// state is how far a connection has come.
type state uint8

const (
	dialing   state = iota // our SYN is not answered
	answering              // we answered a SYN, and have to hear that the other end got it
	connected
	closed
)

// writeLimit is how many bytes may wait to be sent for the first time: enough that acknowledgements always find
// something to send, and no more, because bytes that wait here wait longest.
const writeLimit = 128 << 10

// Errors of a connection that ended. They are the errors of TCP, so that callers need not distinguish.
var (
	errRefused  error = syscall.ECONNREFUSED
	errReset    error = syscall.ECONNRESET
	errTimedOut error = syscall.ETIMEDOUT
)

// endpoint is one end of a connection. It takes packets, written data and the time, and produces packets and data to
// be read. It is plain data, which one goroutine at a time may use. The time is counted from some moment before the
// first packet.
//
// After every call, transmit sends the packets that are due, and due returns when to call tick if nothing happens
// until then.
type endpoint struct {
	state state
	err   error // why it is closed; nil for an orderly end

	recvID, sendID uint16
	synSeq         uint16   // of the SYN that made the connection
	epoch          uint32   // what stamps count from, so that only those who have seen one know it
	guesses        *guesses // of strangers, at the confirmations of connections

	out  outgoing
	in   incoming
	rtt  roundTrip
	wait delays
	cong congestion
	pace pacer
	mtu  mtuSearch
	loss lossDetection

	takes uint16 // how large packets the other end is told that we take; 0 is that it is told nothing
	felt  uint16 // how large a feeler was that the other end is to be told of

	// Said by the other end:
	window     int           // bytes that it has room for
	windowSeen uint32        // its clock when it said so
	diff       uint32        // how much later than its stamp its last packet came
	heard      time.Duration // when that was

	limited   bool // the window was full since the last acknowledgement
	corked    bool // only a write has happened: less than a full run may wait for the next acknowledgement
	abandoned bool // the caller has closed its side: incoming data is of no use
	finished  bool // the caller writes no more
	settled   bool // the connection waits only for late packets of the other end

	withheld withholding

	acks   ackState
	timers timers
}

// init makes an endpoint of a zero one, which then has to dial or to answer.
func (e *endpoint) init(memory allocator, strangers *guesses, ipv6 bool, now time.Duration) {
	e.guesses = strangers
	e.mtu = newMTUSearch(ipv6)
	e.cong = newCongestion(int(e.mtu.size))
	e.out = outgoing{memory: memory, order: 1}
	e.in = incoming{memory: memory, capacity: firstReceive, told: firstReceive}
	e.heard = now
	e.timers.keepAlive = now + keepAlive
}

// dial begins a connection with the identity said.
func (e *endpoint) dial(id, seq uint16, now time.Duration) {
	e.state = dialing
	e.recvID, e.sendID, e.synSeq = id, id+1, seq
	e.begin(seq + 1)
	e.timers.handshake = now
}

// answer begins a connection that a SYN asks for. Our packets are numbered from seq on.
func (e *endpoint) answer(syn *packet, seq uint16, now time.Duration) {
	e.state = answering
	e.recvID, e.sendID, e.synSeq = syn.id+1, syn.id, syn.seq
	e.begin(seq)
	e.in.ack = syn.seq
	e.note(&syn.header, now)
	e.heardLargest(syn)
	e.window, e.windowSeen = int(min(syn.window, 1<<30)), syn.stamp
	e.acks.now = true
	e.timers.handshake = now + unconfirmedFor
}

// begin sets the number of the first packet of data.
func (e *endpoint) begin(seq uint16) {
	e.out.una, e.out.nxt, e.out.end = seq, seq, seq
	e.loss.furthest = seq - 1
}

// receive takes a packet that was sent to this connection.
func (e *endpoint) receive(h *packet, now time.Duration) {
	if e.state == closed {
		return
	}
	switch h.kind {
	case typeSyn:
		// Our answer may have been lost. (No other SYN has this id, or it is of no use to its sender.)
		if e.state == answering && h.seq == e.synSeq {
			e.acks.now = true
		}
		return
	case typeReset:
		e.receiveReset(h)
		return
	}
	if e.state == dialing {
		e.receiveAnswer(h, now)
		return
	}
	if e.state == answering && !e.confirmedBy(h, now) || !e.out.plausible(h.ack) {
		return
	}
	if e.state == answering {
		e.state = connected
		e.timers.handshake = 0
		if e.timers.sends == 1 {
			e.rtt.sample(now-e.timers.synSent, now)
		}
	}
	e.note(&h.header, now)
	e.acknowledge(h, now)
	if e.state == closed {
		return
	}
	e.settle(now)
	if h.kind == typeState {
		if e.takes > 0 {
			e.feltBy(h)
		}
		return
	}
	e.receiveData(h, now)
}

// receiveReset ends the connection if the other end may have sent the reset.
func (e *endpoint) receiveReset(h *packet) {
	switch {
	case !e.plausibleReset(h):
	case e.state == dialing:
		e.end(errRefused)
	default:
		e.end(errReset)
	}
}

// receiveData takes the payload of a packet, or the end, and has it acknowledged.
func (e *endpoint) receiveData(h *packet, now time.Duration) {
	fin := h.kind == typeFin
	if e.abandoned && !fin && !e.in.complete && before(e.in.ack, h.seq) && e.out.empty() {
		// The other end sends to a caller that has left. It has received everything that the caller wrote.
		e.end(nil)
		e.acks.reset = true
		return
	}
	ahead := e.in.ahead
	switch fresh := e.in.accept(h.seq, h.payload, fin); {
	case !fresh, fin, ahead > e.in.ahead, ahead == 0 && e.in.ahead > 0:
		e.acks.now = true // a known packet, the last one, or the beginning or end of a gap: tell the other end
	default:
		// The longer the gap, the more it takes to tell of it.
		e.acks.arrived(ackPackets+e.in.span()/256, now)
	}
	if e.abandoned {
		e.in.dropReady()
	}
}

// settle ends a connection that its caller has left, soon after everything that the caller wrote has arrived. Until
// then, packets that the other end sends again are answered.
func (e *endpoint) settle(now time.Duration) {
	if e.abandoned && e.out.empty() && !e.settled && e.state == connected {
		e.settled = true
		e.timers.linger = now + max(closingFor, 2*e.rtt.timeout(0))
	}
}

// receiveAnswer takes the answer to a SYN. It has the number of the first data to come.
func (e *endpoint) receiveAnswer(h *packet, now time.Duration) {
	if h.kind != typeState || h.ack != e.synSeq {
		return
	}
	e.note(&h.header, now)
	e.heardLargest(h)
	e.state = connected
	e.in.ack = h.seq - 1
	e.window, e.windowSeen = int(min(h.window, 1<<30)), h.stamp
	if e.timers.sends == 1 {
		e.rtt.sample(now-e.timers.synSent, now)
	}
	e.timers.handshake = 0
	e.timers.confirms = confirmations
	e.acks.confirm(now)
}

// heardLargest records the largest packet that the other end says it takes, and answers it.
func (e *endpoint) heardLargest(h *packet) {
	e.takes = min(e.takes, h.ext.largest())
	e.mtu.beyond = e.takes
}

// feltBy takes a feeler, or the other end's answer to ours.
func (e *endpoint) feltBy(h *packet) {
	if len(h.payload) > 0 {
		e.felt = uint16(min(headerSize+len(h.payload), int(e.takes)))
	}
	if size := h.ext.largest(); size > 0 {
		e.mtu.answered(size)
		e.cong.packet = float64(e.mtu.size)
	}
}

// note records the header fields of every packet.
func (e *endpoint) note(h *header, now time.Duration) {
	e.heard = now
	if soon := now + e.rtt.timeout(0); e.loss.timeouts > 0 && e.timers.retransmit > soon {
		e.timers.retransmit, e.loss.timeouts = soon, 1 // the path works again, at least one way
	}
	e.timers.confirms = 0
	e.diff = e.stamp(now) - h.stamp
	e.wait.heard(e.diff, now)
	e.wait.told(h.diff, now)
	if e.diff == 0 {
		e.diff = 1 // 0 says that there is none
	}
}

// plausibleReset reports whether a reset may come from the other end, judged by the packet that it acknowledges.
func (e *endpoint) plausibleReset(h *packet) bool {
	if e.state == dialing {
		return h.ack == e.synSeq
	}
	return !before(h.ack, e.out.una-1) && !before(e.out.nxt, h.ack)
}

// stamp is the time as packets have it.
func stamp(now time.Duration) uint32 { return uint32(now / time.Microsecond) }

// stamp is the time as the packets of the connection have it.
func (e *endpoint) stamp(now time.Duration) uint32 { return e.epoch + stamp(now) }

// write takes as much of p as there is room for.
func (e *endpoint) write(p []byte, now time.Duration) (n int) {
	if e.state != connected && e.state != dialing || e.finished {
		return 0
	}
	if e.out.empty() {
		e.resume(now)
	}
	// A probe of the path's MTU is a packet by itself, and needs all its bytes at once.
	if probe := e.mtu.probe(now); probe != 0 && len(p) >= 2*probe && e.state == connected && e.out.waiting < writeLimit {
		n = e.out.fill(p)
		if e.out.room() {
			n += e.out.writeProbe(p[n:], probe)
			e.mtu.sent(probe)
		}
	}
	n += e.out.write(p[n:], int(e.mtu.size), writeLimit)
	e.corked = true
	return n
}

// resume begins to send after a pause.
func (e *endpoint) resume(now time.Duration) {
	if e.loss.lastSent == 0 {
		return
	}
	if idle, period := now-e.loss.lastSent, e.rtt.timeout(0); idle > period {
		e.cong.idled(int(idle / period))
	}
}

// read gives what has arrived in order.
func (e *endpoint) read(p []byte, now time.Duration) (n int) {
	n = e.in.take(p)
	e.wasRead(now)
	return n
}

// wasRead updates the window after a read.
func (e *endpoint) wasRead(now time.Duration) {
	e.in.widen(e.wait.base(), now)
	if e.state == connected && e.in.news() && !e.in.complete {
		e.acks.now = true
	}
}

// eof reports whether everything that the other end wrote was read.
func (e *endpoint) eof() bool { return e.in.complete && e.in.ready == 0 }

// closeWrite closes the connection for writing.
func (e *endpoint) closeWrite() {
	if !e.finished && e.state != closed {
		e.finished, e.corked = true, false
		e.out.finish()
	}
}

// close closes both directions. Written data is still delivered, if the other end takes it in time.
func (e *endpoint) close(now time.Duration) {
	if e.abandoned {
		return
	}
	e.abandoned = true
	if e.state == closed {
		e.in.dropReady()
		return
	}
	if e.state != connected {
		e.end(nil)
		return
	}
	e.in.dropReady()
	e.closeWrite()
	e.timers.linger, e.timers.lingerEnd = now+lingerFor, now+longestLinger
	e.settle(now)
}

// abort ends the connection at once, and tells the other end.
func (e *endpoint) abort(err error) {
	if e.state == connected {
		e.acks.reset = true
	}
	e.end(err)
}

// discard ends the connection at once, and drops unread data.
func (e *endpoint) discard(err error) {
	e.abort(err)
	if e.in.ready > 0 {
		e.in.complete = false // a reader must not take this for the end of the other end's data
	}
	e.in.dropReady()
}

// end drops everything.
func (e *endpoint) end(err error) {
	if e.state == closed {
		return
	}
	e.state, e.err = closed, err
	e.out.drop()
	e.in.dropEarly() // data in order may still be read
	if e.abandoned {
		e.in.dropReady()
	}
}
