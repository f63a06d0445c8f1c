package dht

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"
)

// simNet is a network of nodes under a virtual clock: one goroutine takes one event after the other, a
// datagram that arrives or a node's tick, and hands it to the real core. The same seed gives the same
// course, but for what maps draw.
type simNet struct {
	rng    *rand.Rand
	start  time.Time
	now    time.Time
	events []simEvent // a heap
	seq    uint64
	nodes  map[netip.AddrPort]*simNode
	alive  []*simNode
	loss   float64
	free   [][]byte // buffers of datagrams that arrived

	sinks   map[netip.Addr]*simSink // addresses without a node that are watched
	seeds   [2]uint64               // of latencies
	packets int
	still   int // events since time passed
}

// simSink counts what arrives at an address.
type simSink struct {
	packets, bytes int
	from           map[netip.AddrPort]int
}

type simNode struct {
	addr  netip.AddrPort
	core  *core
	tick  time.Time // of the event that counts
	index int       // in alive
	gone  bool

	// answer takes a query in place of the core, if it says so. It is how liars lie.
	answer func(from netip.AddrPort, b []byte) bool
	liar   bool
	sent   func(to netip.AddrPort) // sees what the node sends
	got    func(from netip.AddrPort, b []byte)
}

type simEvent struct {
	at   time.Time
	seq  uint64
	node *simNode // whose tick it is, unless it is a datagram or a call
	call func()
	to   netip.AddrPort
	from netip.AddrPort
	b    []byte
}

func newSimNet(seed uint64, loss float64) *simNet {
	rng := rand.New(rand.NewPCG(seed, 5))
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	return &simNet{
		rng: rng, start: start, now: start, loss: loss,
		nodes: make(map[netip.AddrPort]*simNode),
		sinks: make(map[netip.Addr]*simSink),
		seeds: [2]uint64{rng.Uint64(), rng.Uint64()},
	}
}

func (e *simEvent) before(other *simEvent) bool {
	return e.at.Before(other.at) || e.at.Equal(other.at) && e.seq < other.seq
}

func (n *simNet) push(e simEvent) {
	n.seq++
	e.seq = n.seq
	n.events = append(n.events, e)
	i := len(n.events) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !n.events[i].before(&n.events[up]) {
			break
		}
		n.events[i], n.events[up] = n.events[up], n.events[i]
		i = up
	}
}

func (n *simNet) pop() simEvent {
	top := n.events[0]
	last := len(n.events) - 1
	n.events[0] = n.events[last]
	n.events[last] = simEvent{}
	n.events = n.events[:last]
	for i := 0; ; {
		down := 2*i + 1
		if down >= last {
			break
		}
		if down+1 < last && n.events[down+1].before(&n.events[down]) {
			down++
		}
		if !n.events[down].before(&n.events[i]) {
			break
		}
		n.events[i], n.events[down] = n.events[down], n.events[i]
		i = down
	}
	return top
}

// run lets time pass.
func (n *simNet) run(d time.Duration) {
	end := n.now.Add(d)
	for len(n.events) > 0 && !n.events[0].at.After(end) {
		e := n.pop()
		if e.at.After(n.now) {
			n.still = 0
		} else if n.still++; n.still > 1_000_000 {
			panic(fmt.Sprintf("time stands still at %v: %+v", n.now.Sub(n.start), e.node.core.next(n.now).Sub(n.now)))
		}
		n.now = e.at
		switch {
		case e.call != nil:
			e.call()
		case e.node != nil:
			if !e.node.gone && e.node.tick.Equal(e.at) {
				e.node.tick = time.Time{}
				e.node.core.tick(n.now)
				n.settle(e.node)
			}
		default:
			n.deliver(e)
		}
	}
	n.now = end
}

func (n *simNet) after(d time.Duration, call func()) { n.push(simEvent{at: n.now.Add(d), call: call}) }

func (n *simNet) deliver(e simEvent) {
	n.packets++
	if to := n.nodes[e.to]; to != nil {
		if to.got != nil {
			to.got(e.from, e.b)
		}
		if to.answer == nil || !to.answer(e.from, e.b) {
			to.core.receive(n.now, e.b, e.from)
		}
		n.settle(to)
	} else if sink := n.sinks[e.to.Addr()]; sink != nil {
		sink.packets++
		sink.bytes += len(e.b)
		sink.from[e.from]++
	}
	n.free = append(n.free, e.b[:0])
}

// settle sends what a node wants sent, and sets its timer.
func (n *simNet) settle(node *simNode) {
	for b, to := range node.core.out.each {
		if node.sent != nil {
			node.sent(to)
		}
		n.send(node.addr, to, b, 0)
	}
	node.core.out.reset()
	for _, f := range node.core.found {
		f.kept.found(f.by, f.peers)
	}
	node.core.found = node.core.found[:0]
	if next := node.core.next(n.now); !next.Equal(node.tick) {
		next = later(next, n.now)
		node.tick = next
		n.push(simEvent{at: next, node: node})
	}
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// send lets a datagram arrive, unless it is lost, after the time that it takes between two addresses and
// what is added to that.
func (n *simNet) send(from, to netip.AddrPort, b []byte, more time.Duration) {
	if n.rng.Float64() < n.loss {
		return
	}
	var copied []byte
	if last := len(n.free) - 1; last >= 0 {
		copied, n.free = n.free[last], n.free[:last]
	}
	copied = append(copied, b...)
	n.push(simEvent{at: n.now.Add(n.latency(from, to) + more), from: from, to: to, b: copied})
}

func (n *simNet) latency(from, to netip.AddrPort) time.Duration {
	a, b := from.Addr().As16(), to.Addr().As16()
	x := binary.LittleEndian.Uint64(a[8:]) ^ binary.LittleEndian.Uint64(b[8:]) ^ n.seeds[0]
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	base := 10*time.Millisecond + time.Duration(x%90)*time.Millisecond
	return base + time.Duration(n.rng.Int64N(int64(base/4)))
}

// address draws a public address that no node has.
func (n *simNet) address() netip.AddrPort {
	for {
		ip := netip.AddrFrom4([4]byte{byte(11 + n.rng.IntN(87)), byte(n.rng.IntN(256)), byte(n.rng.IntN(256)), byte(1 + n.rng.IntN(254))})
		a := netip.AddrPortFrom(ip, uint16(1024+n.rng.IntN(60000)))
		if n.nodes[a] == nil && n.sinks[ip] == nil {
			return a
		}
	}
}

// join adds a node that knows some of those that are there.
func (n *simNet) join(cfg Config, known int) *simNode {
	cfg.IPv4 = true
	for range min(known, len(n.alive)) {
		cfg.Nodes = append(cfg.Nodes, n.alive[n.rng.IntN(len(n.alive))].addr.String())
	}
	node := &simNode{addr: n.address(), index: len(n.alive)}
	node.core = newCore(n.now, &cfg, rand.New(rand.NewPCG(n.rng.Uint64(), n.rng.Uint64())))
	n.nodes[node.addr] = node
	n.alive = append(n.alive, node)
	n.touch(node)
	return node
}

// leave takes a node away without a word.
func (n *simNet) leave(node *simNode) {
	node.gone = true
	delete(n.nodes, node.addr)
	last := n.alive[len(n.alive)-1]
	n.alive[node.index], last.index = last, node.index
	n.alive = n.alive[:len(n.alive)-1]
}

// touch has a node act after something was begun on it.
func (n *simNet) touch(node *simNode) {
	node.core.tick(n.now)
	n.settle(node)
}

func (n *simNet) watch(ip netip.Addr) *simSink {
	s := &simSink{from: make(map[netip.AddrPort]int)}
	n.sinks[ip] = s
	return s
}

func (n *simNet) String() string {
	return fmt.Sprintf("%d nodes after %v and %d datagrams", len(n.alive), n.now.Sub(n.start).Round(time.Second), n.packets)
}
