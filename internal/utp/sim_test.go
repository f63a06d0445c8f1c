package utp

import (
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/shoal-go/torrent/internal/heaps"
)

// simulation is a world of endpoints, links and a clock, without a goroutine: all that happens is an event.
type simulation struct {
	now    time.Duration
	events heaps.Heap[event]
	seq    int
	rand   *rand.Rand
	lots   uint64 // of endpoints so far
}

func newSimulation(seed uint64) *simulation {
	return &simulation{now: time.Second, rand: rand.New(rand.NewPCG(seed, 1)), events: heaps.New(event.before, nil)}
}

type event struct {
	at  time.Duration
	seq int
	do  func()
}

func (e event) before(other event) bool {
	return e.at < other.at || e.at == other.at && e.seq < other.seq
}

func (s *simulation) after(d time.Duration, do func()) {
	s.seq++
	s.events.Push(event{s.now + d, s.seq, do})
}

// run runs what happens until a time.
func (s *simulation) run(until time.Duration) {
	for s.events.Len() > 0 && s.events.First().at <= until {
		e := s.events.Pop()
		s.now = e.at
		e.do()
	}
	s.now = max(s.now, until)
}

const ipHeaders = 28

// simLink carries packets one way, with all that may befall them on it.
type simLink struct {
	s         *simulation
	rate      float64 // bytes a second; 0 is no limit
	delay     time.Duration
	jitter    time.Duration
	buffer    int     // bytes
	loss      float64 // of all packets
	reorder   float64 // of packets that are held up by reorderBy
	reorderBy time.Duration
	duplicate float64
	mtu       int // larger packets vanish if they may not be fragmented, or if fragments is false
	fragments bool

	free    time.Duration // when the wire is
	carried int           // bytes
	dropped int           // packets, by a full buffer
	lost    int
	longest time.Duration // wait in the buffer since reset
}

func (l *simLink) queue() time.Duration { return max(l.free-l.s.now, 0) }

func (l *simLink) send(size int, df bool, deliver func()) {
	s := l.s
	size += ipHeaders
	if l.mtu != 0 && size > l.mtu && (df || !l.fragments) {
		return
	}
	if l.loss > 0 && s.rand.Float64() < l.loss {
		l.lost++
		return
	}
	at := s.now
	if l.rate > 0 {
		wait := l.queue()
		if l.buffer > 0 && wait > 0 && int(wait.Seconds()*l.rate)+size > l.buffer {
			l.dropped++
			return
		}
		l.longest = max(l.longest, wait)
		l.free = max(l.free, s.now) + time.Duration(float64(size)/l.rate*1e9)
		at = l.free
	}
	l.carried += size
	d := at - s.now + l.delay
	if l.jitter > 0 {
		d += time.Duration(s.rand.Int64N(int64(l.jitter)))
	}
	if l.reorder > 0 && s.rand.Float64() < l.reorder {
		d += l.reorderBy
	}
	s.after(d, deliver)
	if l.duplicate > 0 && s.rand.Float64() < l.duplicate {
		s.after(d+time.Duration(s.rand.Int64N(int64(10*time.Millisecond))), deliver)
	}
}

// plain lends memory, and counts what is lent.
type plain struct{ lent int }

func (m *plain) allocate(size int) []byte {
	m.lent++
	for _, block := range [...]int{smallBlock, largeBlock, hugeBlock} {
		if size <= block {
			return make([]byte, block)
		}
	}
	panic("no such block")
}
func (m *plain) release(b []byte) {
	if len(b) != smallBlock && len(b) != largeBlock && len(b) != hugeBlock {
		panic("not a block")
	}
	m.lent--
}

// node is an endpoint in a simulation, with the caller that it serves.
type node struct {
	s        *simulation
	e        *endpoint
	out      *simLink
	peer     *node
	memory   plain
	wake     time.Duration // of the tick that is scheduled
	skew     float64       // of its clock
	offset   time.Duration
	capacity int // that it begins with; 0 is the usual
	ipv6     bool
	local    bool // packets larger than those of Ethernet are taken
	device   int  // the largest packet that it sends in one piece; 0 is any
	gaveUp   bool // it has ended though not all that was written had arrived
	// act is called after everything that happens, to read and write.
	act func()

	packets, bytes int // sent
}

func (n *node) now() time.Duration {
	return n.s.now + n.offset + time.Duration(float64(n.s.now)*n.skew)
}

func (n *node) send(p []byte, segment int) (int, error) {
	if segment == 0 {
		segment = len(p)
	}
	for b := p; len(b) > 0; {
		k := min(segment, len(b))
		n.carry(b[:k], false)
		b = b[k:]
	}
	return len(p), nil
}

func (n *node) probe(p []byte) error {
	if n.device != 0 && len(p)+ipHeaders > n.device {
		return syscall.EMSGSIZE
	}
	n.carry(p, true)
	return nil
}

func (n *node) carry(p []byte, df bool) {
	n.packets++
	n.bytes += len(p)
	p = append([]byte(nil), p...)
	n.out.send(len(p), df, func() { n.peer.receive(p) })
}

// begin makes the endpoint.
func (n *node) begin() {
	n.e = new(endpoint)
	n.e.init(&n.memory, new(guesses), n.ipv6, n.now())
	n.s.lots += 0x9e3779b97f4a7c15 // odd, so that the multiples are far apart
	n.e.withheld.begin(n.s.lots, n.e.out.order)
	if n.local {
		n.e.takes = largestLocal
	}
	if n.capacity != 0 {
		n.e.in.capacity, n.e.in.told = n.capacity, n.capacity
	}
}

// dial has the node begin the connection, which it does with its next step.
func (n *node) dial() {
	n.begin()
	n.e.dial(uint16(n.s.rand.Uint32()), uint16(n.s.rand.Uint32()), n.now())
}

func (n *node) receive(p []byte) {
	var h packet
	if !h.parse(p) {
		panic("sent a packet that is none")
	}
	if n.e == nil {
		if h.kind != typeSyn {
			return
		}
		n.begin()
		n.e.answer(&h, uint16(n.s.rand.Uint32()), n.now())
	} else if h.kind != typeSyn && h.id != n.e.recvID {
		panic("another connection's packet")
	}
	if n.gaveUp && h.kind != typeReset { // as a Socket answers what belongs to no connection
		b := make([]byte, headerSize)
		reset := header{kind: typeReset, id: n.e.sendID, stamp: stamp(n.now()), ack: h.seq}
		reset.put(b, 0)
		n.carry(b, false)
		return
	}
	n.e.receive(&h, n.now())
	n.step()
}

// step lets the caller act, sends, and schedules the next tick.
func (n *node) step() {
	if n.e == nil {
		return
	}
	if n.act != nil {
		n.act()
	}
	n.e.transmit(n.now(), n)
	if n.act != nil && n.e.state == closed {
		n.act()
	}
	due := n.e.due()
	if due == 0 {
		return
	}
	wait := max(due-n.now(), 0) + time.Microsecond
	if n.wake > n.s.now && n.wake <= n.s.now+wait {
		return // wakes up soon enough
	}
	at := n.s.now + wait
	n.wake = at
	n.s.after(wait, func() {
		if n.wake != at {
			return
		}
		n.wake = 0
		waits := !n.e.out.empty()
		n.e.tick(n.now())
		n.gaveUp = n.gaveUp || waits && n.e.state == closed
		n.step()
	})
}

// connect makes two ends over a pair of links. The first dials.
func (s *simulation) connect(there, back *simLink) (a, b *node) {
	a, b = &node{s: s, out: there}, &node{s: s, out: back}
	a.peer, b.peer = b, a
	a.dial()
	return a, b
}

var zeros [1 << 16]byte

// bulk has a node write without end.
func (n *node) bulk() {
	n.act = func() {
		for n.e.write(zeros[:], n.now()) > 0 {
		}
	}
}

// sink has a node read everything; it counts what.
func (n *node) sink(read *int) {
	var b [1 << 16]byte
	n.act = func() {
		for {
			k := n.e.read(b[:], n.now())
			if k == 0 {
				return
			}
			*read += k
		}
	}
}
