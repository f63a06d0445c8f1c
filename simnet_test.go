package torrent

import (
	"container/heap"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// simNet is a network in memory for a testing/synctest bubble: hosts with an uplink and a downlink
// of some bandwidth, paths with latency between them, and TCP-like connections and datagrams.
//
// All that happens later is an event in one heap, run in order by one goroutine with one timer, so that
// a history depends on the virtual clock and not on which goroutine came first. One mutex guards
// everything; nothing blocks under it but the waits of sync.Cond, which let the clock go on.
type simNet struct {
	mu        sync.Mutex
	began     time.Time
	timer     *time.Timer   // set for the earliest event
	wake      time.Duration // what timer is set for; simNever if it is not set
	events    simEvents
	seq       uint64 // of the event made last
	listeners map[netip.AddrPort]*simListener
	packets   map[netip.AddrPort]*simPacketConn
	known     map[netip.Addr]bool // addresses that some host has
	paths     map[[2]*simHost]*simPath
	conns     map[*simConn]bool // ends that are not closed
	closed    chan struct{}
}

const simNever = time.Duration(1<<63 - 1)

// simulate runs f in a bubble with a network, and ends the network's connections after it.
func simulate(t *testing.T, f func(t *testing.T, n *simNet)) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet()
		defer n.close()
		f(t, n)
	})
}

// after lets time pass, until everything due by then has happened.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func newSimNet() *simNet {
	n := &simNet{
		began:     time.Now(),
		timer:     time.NewTimer(simNever),
		wake:      simNever,
		listeners: map[netip.AddrPort]*simListener{},
		packets:   map[netip.AddrPort]*simPacketConn{},
		known:     map[netip.Addr]bool{},
		paths:     map[[2]*simHost]*simPath{},
		conns:     map[*simConn]bool{},
		closed:    make(chan struct{}),
	}
	go func() {
		for {
			select {
			case <-n.timer.C:
				n.run()
			case <-n.closed:
				return
			}
		}
	}()
	return n
}

// now is the virtual time since the network began.
func (n *simNet) now() time.Duration { return time.Since(n.began) }

// Lock takes the mutex that guards the network, and under which a tap is called: nothing moves meanwhile.
func (n *simNet) Lock() { n.mu.Lock() }

// Unlock gives the mutex back.
func (n *simNet) Unlock() { n.mu.Unlock() }

// addresses is how many addresses the hosts have.
func (n *simNet) addresses() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.known)
}

// close ends every connection and listener, so that whoever still waits on one is told.
func (n *simNet) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.closed)
	for c := range n.conns {
		c.shut()
	}
	for _, l := range n.listeners {
		l.shut()
	}
	for _, p := range n.packets {
		p.shut()
	}
}

// after runs do in d, with mu held. The caller holds mu.
func (n *simNet) after(d time.Duration, do func()) {
	n.seq++
	at := n.now() + d
	heap.Push(&n.events, simEvent{at: at, seq: n.seq, do: do})
	if at < n.wake {
		n.setTimer(at, d)
	}
}

// pause returns a channel that is closed in d. Timers of one instant fire in an order drawn by lot; pauses
// end in the order they began.
func (n *simNet) pause(d time.Duration) <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	over := make(chan struct{})
	n.after(d, func() { close(over) })
	return over
}

func (n *simNet) setTimer(at, d time.Duration) {
	n.wake = at
	n.timer.Reset(d)
}

// run does everything that is due, in order.
func (n *simNet) run() {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.now()
	n.wake = 0 // events made meanwhile leave the timer alone
	for len(n.events) > 0 && n.events[0].at <= now {
		heap.Pop(&n.events).(simEvent).do()
	}
	n.wake = simNever
	if len(n.events) > 0 {
		n.setTimer(n.events[0].at, n.events[0].at-now)
	}
}

type simEvent struct {
	at  time.Duration
	seq uint64
	do  func()
}

// simEvents is a heap by time; events of one instant run in the order they were made.
type simEvents []simEvent

func (e simEvents) Len() int { return len(e) }
func (e simEvents) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e simEvents) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *simEvents) Push(x any)   { *e = append(*e, x.(simEvent)) }
func (e *simEvents) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	(*e)[last] = simEvent{}
	*e = (*e)[:last]
	return x
}

// simHost is a machine with one address. Several may share an address, as behind a router.
type simHost struct {
	net      *simNet
	ip       netip.Addr
	delay    time.Duration // one way, between this host and the middle of the network
	up, down *simLink
	port     uint16       // ephemeral port given out last
	cut      bool         // nothing reaches it or leaves it any more; nobody is told
	plan     func() fault // what befalls each new connection of this host, nil for nothing
	tap      simTapper    // listens in on each new connection of this host, nil for nobody
	buffer   int          // bytes under way in a connection that this host sends on; 0 chooses as TCP would
}

// host adds a machine. Rates are in bytes a second, 0 for no limit; delay is one way.
func (n *simNet) host(ip string, up, down float64, delay time.Duration) *simHost {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := &simHost{net: n, ip: netip.MustParseAddr(ip), delay: delay, port: 32767}
	h.up, h.down = &simLink{net: n, rate: up}, &simLink{net: n, rate: down}
	n.known[h.ip] = true
	return h
}

// Network is the network that the host is on.
func (h *simHost) Network() *simNet { return h.net }

// IP is the host's address.
func (h *simHost) IP() netip.Addr { return h.ip }

// addr is the host's address with a port.
func (h *simHost) addr(port uint16) netip.AddrPort { return netip.AddrPortFrom(h.ip, port) }

// unplug takes the host off the network without a word to anyone.
func (h *simHost) unplug() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.cut = true
}

// open is how many connection ends and listeners the host still has.
func (h *simHost) open() (conns, listeners int) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	for c := range h.net.conns {
		if c.host == h {
			conns++
		}
	}
	for _, l := range h.net.listeners {
		if l.host == h {
			listeners++
		}
	}
	for _, p := range h.net.packets {
		if p.host == h {
			listeners++
		}
	}
	return conns, listeners
}

// sent and received are the bytes that passed the host's links.
func (h *simHost) sent() int64     { return h.up.passed() }
func (h *simHost) received() int64 { return h.down.passed() }

// uplink and downlink are the rates of the host's links in bytes a second, 0 for no limit.
func (h *simHost) uplink() float64   { return h.up.rate }
func (h *simHost) downlink() float64 { return h.down.rate }

// underWay is what other hosts have sent to the host and the host has not read, in bytes.
func (h *simHost) underWay() (n int64) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	for c := range h.net.conns {
		if c.host == h {
			n += int64(c.in.under)
		}
	}
	return n
}

// clearing is how long it takes until what other hosts have sent to the host, and so many bytes more of each,
// has passed their uplinks.
func (h *simHost) clearing(more int) (d time.Duration) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	for c := range h.net.conns {
		if c.host == h {
			d = max(d, time.Duration(float64(c.in.under+more)/c.in.from.up.rate*float64(time.Second)))
		}
	}
	return d
}

// ephemeral is a port that nothing on the address uses. The caller holds mu.
func (h *simHost) ephemeral() uint16 {
	for {
		h.port = max(h.port+1, 32768)
		if h.net.listeners[h.addr(h.port)] == nil && h.net.packets[h.addr(h.port)] == nil {
			return h.port
		}
	}
}

// simPath is what lies between two hosts beside their own links, one way.
type simPath struct {
	delay time.Duration
	link  *simLink // nil if only the hosts' links bound the rate
}

// path sets latency and bandwidth between two hosts, for each way by itself, in place of the sum of their delays.
func (n *simNet) path(a, b *simHost, delay time.Duration, rate float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, ends := range [][2]*simHost{{a, b}, {b, a}} {
		p := &simPath{delay: delay}
		if rate > 0 {
			p.link = &simLink{net: n, rate: rate}
		}
		n.paths[ends] = p
	}
}

// between is the path from a to b. The caller holds mu.
func (n *simNet) between(a, b *simHost) *simPath {
	if p := n.paths[[2]*simHost{a, b}]; p != nil {
		return p
	}
	return &simPath{delay: a.delay + b.delay}
}

// simLink sends one segment at a time at its rate. Where several connections wait, the one that
// was served least goes first (start-time fair queueing), so that each gets an equal share and
// a short message does not wait behind another connection's bulk.
type simLink struct {
	net     *simNet
	rate    float64 // bytes a second; 0 is no limit
	busy    bool
	served  int64 // virtual start of the segment served last, in bytes
	waiting []*simFlow
	bytes   int64 // passed, in all
}

// simFlow is the queue of one connection, one way, before one link.
type simFlow struct {
	link          *simLink
	next          func(simSegment) // where a segment goes once it has passed the link
	queue         []simSegment
	start, finish int64 // of the segment at the head, and of the one before it, in the link's virtual bytes
}

// simSegment is a run of bytes under way, or the end of a stream.
type simSegment struct {
	b    []byte
	read int // how much of b its receiver has taken
	fin  bool
}

func (l *simLink) passed() int64 {
	l.net.mu.Lock()
	defer l.net.mu.Unlock()
	return l.bytes
}

// send queues a segment on the flow. The caller holds mu.
func (f *simFlow) send(s simSegment) {
	l := f.link
	if len(f.queue) == 0 {
		f.start = max(f.finish, l.served)
		l.waiting = append(l.waiting, f)
	}
	f.queue = append(f.queue, s)
	l.serve()
}

// serve puts the next segment on the link if it is free. The caller holds mu.
func (l *simLink) serve() {
	for !l.busy && len(l.waiting) > 0 {
		best := 0
		for i, f := range l.waiting {
			if f.start < l.waiting[best].start {
				best = i
			}
		}
		f := l.waiting[best]
		s := f.queue[0]
		f.queue[0] = simSegment{}
		f.queue = f.queue[1:]
		l.served, f.finish = f.start, f.start+int64(len(s.b))
		f.start = f.finish
		if len(f.queue) == 0 {
			l.waiting = append(l.waiting[:best], l.waiting[best+1:]...)
		}
		l.bytes += int64(len(s.b))
		if l.rate == 0 || len(s.b) == 0 {
			f.next(s)
			continue
		}
		l.busy = true
		l.net.after(time.Duration(float64(len(s.b))/l.rate*float64(time.Second)), func() {
			l.busy = false
			f.next(s)
			l.serve()
		})
	}
}

func (h *simHost) String() string { return fmt.Sprint(h.ip) }
