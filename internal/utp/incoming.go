package utp

import (
	"time"

	"github.com/shoal-go/torrent/internal/account"
)

const (
	firstReceive   = 1 << 20  // bytes that may lie here unread
	largestReceive = 16 << 20 // and at most, if they are read fast
	leastReorder   = 1024     // packets ahead of one that is missing
	leastRing      = 64       // likewise, for which there is room in any case
)

// incoming puts arriving data in order and holds it until it is read.
type incoming struct {
	memory allocator

	ack      uint16 // the last sequence number that arrived in order
	ring     []inSegment
	ahead    int    // segments in ring
	highest  uint16 // that arrived, if ahead is not 0
	fin      uint16 // sequence number of the end, if ended
	ended    bool   // it is known where the end is
	complete bool   // everything up to the end arrived in order

	// A waiting reader lends its buffer, and arriving data is put there directly.
	direct   []byte
	directed int // bytes in direct

	queue []inSegment // in order, from first on
	first int
	ready int // bytes in queue
	early int // bytes in ring

	capacity int
	lent     int  // bytes of the blocks that are held
	full     bool // no more than a little may be held
	told     int  // what is left of the window last announced
	// The amount read since measured shows how much room the reader needs.
	measured time.Duration
	read     int
}

// inSegment is some bytes of a block. A segment in the ring that was not received has no block.
type inSegment struct {
	block    []byte
	from, to int
}

// window is the room for more.
func (in *incoming) window() int { return max(in.most()-in.ready-in.early, 0) }

// most is how many bytes may lie here unread.
func (in *incoming) most() int {
	if in.full {
		return min(in.capacity, account.Free/2)
	}
	return in.capacity
}

func (in *incoming) lend(size int) []byte {
	b := in.memory.allocate(size)
	in.lent += len(b)
	return b
}

func (in *incoming) giveBack(b []byte) {
	in.lent -= len(b)
	in.memory.release(b)
}

// held returns how much memory is held. A packet of one byte takes a whole block, and room in the ring for the
// packets before it.
func (in *incoming) held() int {
	const perSegment = 40
	return in.lent + perSegment*(len(in.ring)+cap(in.queue))
}

func (in *incoming) at(seq uint16) *inSegment { return &in.ring[int(seq)&(len(in.ring)-1)] }

// reach is how many packets ahead of the last in order one may be.
func (in *incoming) reach() int {
	return min(max(leastReorder, in.capacity/512), maxUnderway)
}

// accept takes a packet of data, or the end. It reports whether that was new.
func (in *incoming) accept(seq uint16, payload []byte, fin bool) bool {
	d := int(int16(seq - in.ack))
	switch {
	case d <= 0 || in.complete:
		return false
	case in.ended && (seq == in.fin) != fin, in.ended && before(in.fin, seq):
		return false // nothing comes after the end
	case d > in.reach():
		return false
	case fin && !in.ended && in.ahead > 0 && before(seq, in.highest):
		return false // something came after this end
	case d > 1 && (in.window() == 0 || in.full && !in.mayHold(d)), in.ready >= in.most() && !fin:
		// The other end was told so, or is probing. What is missing is taken even if packets that came
		// early fill all the room.
		return false
	}
	if fin {
		in.ended, in.fin = true, seq
		payload = nil
	}
	if d > 1 {
		return in.hold(seq, payload)
	}
	in.told = max(in.told-len(payload), 0)
	in.append(payload)
	in.ack = seq
	for in.ahead > 0 && in.at(in.ack+1).block != nil {
		in.ack++
		s := in.at(in.ack)
		in.early -= s.to - s.from
		in.ahead--
		if s.to == s.from {
			in.giveBack(s.block)
		} else {
			in.ready += s.to - s.from
			in.push(*s)
		}
		*s = inSegment{}
	}
	if in.ahead == 0 && len(in.ring) > leastRing {
		in.ring = nil
	}
	in.complete = in.ended && in.ack == in.fin
	return true
}

// mayHold reports whether a packet that came early is kept where no more than a little may be held. One that was overtaken by a few
// is no loss.
func (in *incoming) mayHold(ahead int) bool { return ahead < leastRing && in.held() < account.Free }

// hold keeps a packet that came early.
func (in *incoming) hold(seq uint16, payload []byte) bool {
	need := leastRing
	for need <= int(seq-in.ack) {
		need *= 2
	}
	if need > len(in.ring) {
		ring := make([]inSegment, need)
		for i := range in.ring {
			s := in.ack + 1 + uint16(i)
			ring[int(s)&(need-1)] = *in.at(s)
		}
		in.ring = ring
	}
	s := in.at(seq)
	if s.block != nil {
		return false
	}
	in.told = max(in.told-len(payload), 0)
	size := smallBlock
	if len(payload) > smallBlock {
		size = largeBlock
	}
	s.block = in.lend(size)
	s.to = copy(s.block, payload)
	if in.ahead == 0 || before(in.highest, seq) {
		in.highest = seq
	}
	in.ahead++
	in.early += len(payload)
	return true
}

// append adds bytes to the readable data.
func (in *incoming) append(p []byte) {
	if in.ready == 0 && in.directed < len(in.direct) {
		n := copy(in.direct[in.directed:], p)
		in.directed += n
		p = p[n:]
	}
	in.ready += len(p)
	for len(p) > 0 {
		var last *inSegment
		if len(in.queue) > in.first {
			last = &in.queue[len(in.queue)-1]
		}
		if last == nil || last.to == len(last.block) {
			size := smallBlock
			if last != nil || len(p) > smallBlock {
				size = largeBlock
			}
			in.push(inSegment{block: in.lend(size)})
			last = &in.queue[len(in.queue)-1]
		}
		n := copy(last.block[last.to:], p)
		last.to += n
		p = p[n:]
	}
}

func (in *incoming) push(s inSegment) {
	if in.first > 0 && len(in.queue) == cap(in.queue) {
		n := copy(in.queue, in.queue[in.first:])
		clear(in.queue[n:])
		in.queue, in.first = in.queue[:n], 0
	}
	in.queue = append(in.queue, s)
}

// await arranges that arriving data is put into p, if nothing can be read now and no other reader has done so.
func (in *incoming) await(p []byte) bool {
	if in.direct != nil || in.ready > 0 {
		return false
	}
	in.direct, in.directed = p, 0
	return true
}

// awaited ends await. It returns how many bytes arrived.
func (in *incoming) awaited() (n int) {
	n = in.directed
	in.read += n
	in.direct, in.directed = nil, 0
	return n
}

// take copies readable data to p.
func (in *incoming) take(p []byte) (n int) {
	for n < len(p) && in.first < len(in.queue) {
		s := &in.queue[in.first]
		k := copy(p[n:], s.block[s.from:s.to])
		n += k
		if s.from += k; s.from == s.to {
			in.giveBack(s.block)
			*s = inSegment{}
			in.first++
		}
	}
	if in.first == len(in.queue) {
		in.queue, in.first = in.queue[:0], 0
		if cap(in.queue) > 64 {
			in.queue = nil
		}
	}
	in.ready -= n
	in.read += n
	return n
}

// widen makes room for the data that the reader reads in three round trips: while a packet that was lost is sent again, that of one
// waits here.
func (in *incoming) widen(roundTrip, now time.Duration) {
	if roundTrip == 0 {
		roundTrip = 100 * time.Millisecond
	}
	passed := now - in.measured
	if passed < roundTrip {
		return
	}
	if need := int(3 * float64(in.read) * float64(roundTrip) / float64(passed)); need > in.capacity {
		in.capacity = min(need, max(largestReceive, in.capacity))
	}
	in.measured, in.read = now, 0
}

// news reports whether the other end should hear how much more room there is than it was told.
func (in *incoming) news() bool {
	more := in.window() - in.told
	return more >= in.capacity/4 || more > 0 && in.told < 2*largestIPv4 && more >= min(in.capacity/2, 4*largestIPv4)
}

// span is how many packets there are from the first that may have come early to the last that did.
func (in *incoming) span() int {
	if in.ahead == 0 {
		return 0
	}
	return int(in.highest-in.ack) - 1
}

// mask writes to p which packets arrived early, a bit each from ack+2+first on, and returns how much of p
// it used, which is a multiple of 4.
func (in *incoming) mask(p []byte, first int) int {
	bits := min(in.span()-first, 8*len(p))
	if bits <= 0 {
		return 0
	}
	n := (bits + 31) / 32 * 4
	clear(p[:n])
	for i := range bits {
		if in.at(in.ack+2+uint16(first+i)).block != nil {
			p[i/8] |= 1 << (i % 8)
		}
	}
	return n
}

// dropReady releases the readable data.
func (in *incoming) dropReady() {
	for _, s := range in.queue[in.first:] {
		in.giveBack(s.block)
	}
	in.queue, in.first, in.ready = nil, 0, 0
}

// dropEarly releases the data that arrived out of order.
func (in *incoming) dropEarly() {
	for _, s := range in.ring {
		if s.block != nil {
			in.giveBack(s.block)
		}
	}
	in.ring, in.ahead, in.early = nil, 0, 0
}
