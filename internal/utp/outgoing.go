package utp

import "time"

// maxUnderway is the most packets that may be under way. Sequence numbers of more could not be told apart.
const maxUnderway = 1 << 14

// status is the state of a packet that was cut.
type status uint8

const (
	waiting  status = iota // not sent yet
	underway               // sent, and neither acknowledged nor lost
	missing                // lost, and to be sent again
	arrived                // acknowledged
	withheld               // passed over, and not sent yet
)

// outPacket is a packet of data or the end of it. It keeps its sequence number and its bytes once it was sent.
type outPacket struct {
	block  *outBlock
	at     uint32        // of its header in block
	size   uint16        // with its header
	order  uint32        // number of its last transmission, over all packets
	sent   time.Duration // time of that transmission
	sends  uint8
	status status
	fin    bool
	probe  bool // of the path's MTU
}

func (p *outPacket) bytes() []byte { return p.block.b[p.at : p.at+uint32(p.size)] }
func (p *outPacket) payload() int  { return int(p.size) - headerSize }

// outBlock is memory for packets, which lie in it one behind the other, so that a run of them can be sent
// as it is.
type outBlock struct {
	b       []byte
	used    int
	packets int // that are not acknowledged
}

// outgoing holds data from when it is written until it is acknowledged, cut into packets.
type outgoing struct {
	memory allocator
	lent   int         // bytes of the blocks that are held
	bound  int         // of lent, but for a few packets; 0 is none
	ring   []outPacket // of a power of two
	// Sequence numbers: the oldest that is not acknowledged, the next to be sent for the first time, the
	// next to be cut.
	una, nxt, end uint16
	widest        uint16    // that nxt was ahead of una
	tail          *outBlock // where the next packet is cut
	tailPayload   int       // that the last packet was meant for

	underway int // bytes of payload
	kept     int // likewise, of packets that are withheld
	waiting  int
	missing  int // packets
	resend   uint16
	order    uint32 // of the next transmission
	finished bool   // the last packet is the end
}

func (o *outgoing) at(seq uint16) *outPacket { return &o.ring[int(seq)&(len(o.ring)-1)] }
func (o *outgoing) unacknowledged() int      { return int(o.nxt - o.una) }
func (o *outgoing) empty() bool              { return o.una == o.end }

// plausible reports whether the other end may have acknowledged seq in a packet that comes now: it was sent, and packets
// sent two round trips later have not overtaken it. An attacker that cannot see the packets has to guess.
func (o *outgoing) plausible(seq uint16) bool {
	return before(seq, o.nxt) && !before(seq, o.una-1-min(2*o.widest, maxUnderway))
}

// held returns how much memory is held, that of the connection included. A packet that is not acknowledged keeps its whole
// block.
func (o *outgoing) held() int {
	const perConnection, perPacket = 4 << 10, 40
	if o.lent == 0 {
		return 0
	}
	return perConnection + o.lent + perPacket*len(o.ring)
}

// fewPackets may be held whatever their size, which only in a local network is larger than Ethernet's: acknowledgements of a single one
// are delayed.
const fewPackets = 4

// room reports whether another packet may be cut.
func (o *outgoing) room() bool {
	n := int(o.end - o.una)
	return !o.finished && (o.bound == 0 || o.lent < o.bound || n < fewPackets) && n < maxUnderway
}

// write cuts p into packets of up to size bytes, headers included, as far as the limit of waiting bytes allows, and
// returns how much it took. A packet that is not full yet is filled up first.
func (o *outgoing) write(p []byte, size, limit int) (n int) {
	for n < len(p) && o.waiting < limit {
		if o.last() == nil {
			if !o.room() {
				break
			}
			o.cut(size, len(p)-n)
		}
		n += o.fill(p[n:])
	}
	return n
}

// writeProbe cuts a packet of size bytes from p, which holds as many, to try whether the path carries it.
func (o *outgoing) writeProbe(p []byte, size int) int {
	o.cut(size, len(p)).probe = true
	return o.fill(p)
}

// fill adds to the last packet as many bytes as fit.
func (o *outgoing) fill(p []byte) int {
	last := o.last()
	if last == nil {
		return 0
	}
	n := copy(o.tail.b[o.tail.used:][:o.tailPayload-last.payload()], p)
	o.tail.used += n
	last.size += uint16(n)
	o.waiting += n
	return n
}

// last is the last packet, if it may still be filled up.
func (o *outgoing) last() *outPacket {
	if o.nxt == o.end || o.finished {
		return nil
	}
	if p := o.at(o.end - 1); p.payload() < o.tailPayload {
		return p
	}
	return nil
}

// cut adds an empty packet that is to hold up to size bytes with its header.
func (o *outgoing) cut(size, more int) *outPacket {
	need := size
	if size > smallBlock {
		need = min(size, headerSize+more) // one that is not full leaves the rest of its block to others
	}
	if o.tail == nil || len(o.tail.b)-o.tail.used < need {
		capacity := smallBlock
		switch {
		case 0 < o.bound && o.bound < 2*largeBlock && need <= smallBlock: // it is to hold little
		case o.underway > hugeBlock: // runs of packets that cross no border are worth it
			capacity = hugeBlock
		case more > size || o.nxt != o.end || need > smallBlock:
			capacity = largeBlock
		}
		o.tail = &outBlock{b: o.memory.allocate(capacity)}
		o.lent += len(o.tail.b)
	}
	size = min(size, len(o.tail.b)-o.tail.used)
	if n := int(o.end - o.una); n == len(o.ring) {
		o.grow()
	}
	p := o.at(o.end)
	*p = outPacket{block: o.tail, at: uint32(o.tail.used), size: headerSize}
	o.tail.used += headerSize
	o.tail.packets++
	o.tailPayload = size - headerSize
	o.end++
	return p
}

// finish adds the end.
func (o *outgoing) finish() {
	if !o.finished {
		o.cut(headerSize, 0).fin = true
		o.finished = true
	}
}

func (o *outgoing) grow() {
	ring := make([]outPacket, max(2*len(o.ring), 8))
	for seq := o.una; seq != o.end; seq++ {
		ring[int(seq)&(len(ring)-1)] = *o.at(seq)
	}
	o.ring = ring
}

// sent records a transmission.
func (o *outgoing) sent(p *outPacket, now time.Duration) {
	if p.status == waiting {
		o.nxt++
		o.widest = max(o.widest, o.nxt-o.una)
		o.waiting -= p.payload()
	} else if p.status == missing {
		o.missing--
	}
	if p.status != underway {
		o.underway += p.payload()
	}
	p.status = underway
	p.order, p.sent = o.order, now
	p.sends = min(p.sends+1, 255)
	o.order++
}

// withhold passes over the next packet to be sent for the first time.
func (o *outgoing) withhold(p *outPacket, now time.Duration) {
	o.nxt++
	o.widest = max(o.widest, o.nxt-o.una)
	o.waiting -= p.payload()
	o.pretend(p, now)
}

// pretend withholds a packet as if it had been sent just now.
func (o *outgoing) pretend(p *outPacket, now time.Duration) {
	if p.status != withheld {
		o.kept += p.payload()
	}
	p.status = withheld
	p.order, p.sent = o.order, now
	o.order++
}

// lose marks a packet that is under way, or withheld, as lost.
func (o *outgoing) lose(seq uint16) {
	p := o.at(seq)
	switch p.status {
	case underway:
		o.underway -= p.payload()
	case withheld:
		o.kept -= p.payload()
	}
	p.status = missing
	if o.missing == 0 || before(seq, o.resend) {
		o.resend = seq
	}
	o.missing++
}

// revive marks lost packets that were not sent again as under way. One that never was is withheld for longer.
func (o *outgoing) revive(now time.Duration) {
	for seq := o.una; seq != o.nxt; seq++ {
		p := o.at(seq)
		switch {
		case p.status == missing && p.sends > 0:
			p.status = underway
			o.underway += p.payload()
			o.missing--
		case p.status == missing:
			o.missing--
			o.pretend(p, now)
		case p.status == withheld:
			o.pretend(p, now)
		}
	}
}

// nextMissing is the first packet that is lost.
func (o *outgoing) nextMissing() (seq uint16, ok bool) {
	if o.missing == 0 {
		return 0, false
	}
	for before(o.resend, o.una) || o.at(o.resend).status != missing {
		o.resend++
	}
	return o.resend, true
}

// lastUnderway is the packet furthest on that may still arrive.
func (o *outgoing) lastUnderway() (seq uint16, ok bool) {
	for seq = o.nxt; seq != o.una; seq-- {
		if o.at(seq-1).status == underway {
			return seq - 1, true
		}
	}
	return 0, false
}

// arrive marks a packet as acknowledged and lets go of its bytes.
func (o *outgoing) arrive(p *outPacket) {
	switch p.status {
	case underway:
		o.underway -= p.payload()
	case missing:
		o.missing--
	}
	p.status = arrived
	b := p.block
	p.block = nil
	if b.packets--; b.packets > 0 {
		return
	}
	if b == o.tail {
		o.tail = nil
	}
	o.lent -= len(b.b)
	o.memory.release(b.b)
}

// advance moves past the packets that arrived in order. Once none is left, it releases the memory.
func (o *outgoing) advance() {
	for o.una != o.nxt && o.at(o.una).status == arrived {
		o.una++
	}
	if o.una == o.end && len(o.ring) > 64 {
		o.ring = nil
	}
}

// drop releases everything.
func (o *outgoing) drop() {
	for seq := o.una; seq != o.end; seq++ {
		if p := o.at(seq); p.status != arrived {
			o.arrive(p)
		}
	}
	o.una, o.nxt, o.ring = o.end, o.end, nil
	o.underway, o.waiting, o.missing = 0, 0, 0
}
