// Package simnet simulates a network in memory, for the tests of any package: hosts with links of some
// bandwidth, paths with latency, connections that behave as TCP's do, datagrams, and their faults. It is
// made for testing/synctest bubbles, in which an hour of traffic takes a moment and takes the same course
// each time.
//
//	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
//		a := n.NewHost("80.0.0.1", 1e6, 0, 10*time.Millisecond) // 1 MB/s up, 10 ms to the middle of the network
//		b := n.NewHost("80.0.0.2", 0, 0, 10*time.Millisecond)
//		l, err := b.Listen("tcp", ":6881") // as net.Listen
//		conn, err := a.Dial(t.Context(), "tcp", "80.0.0.2:6881") // as net.Dialer.DialContext
//		…
//	})
//
// Everything may be called from any goroutine of the bubble. Fields of a Host are set before its first
// connection. The package knows nothing of BitTorrent and imports nothing of this module.
package simnet

import (
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/torrent/internal/heaps"
)

// Network is a network in memory: hosts with an uplink and a downlink of some bandwidth, paths with
// latency between them, and TCP-like connections and datagrams.
//
// Everything that happens later is an event in one heap. One goroutine with one timer runs the events in
// order, so the course of a test depends on the virtual clock and not on which goroutine came first. One
// mutex guards everything; nothing blocks under it but the waits of sync.Cond, which let the clock advance.
type Network struct {
	mu        sync.Mutex
	began     time.Time
	timer     *time.Timer   // set for the earliest event
	wake      time.Duration // what timer is set for; never if it is not set
	events    heaps.Heap[event]
	seq       uint64 // of the newest event
	listeners map[netip.AddrPort]*listener
	packets   map[netip.AddrPort]*packetConn
	known     map[netip.Addr]bool // addresses of all hosts
	conns     map[*Conn]bool      // ends that are not closed
	closed    chan struct{}
}

const never = time.Duration(1<<63 - 1)

// Run runs f in a synctest bubble with a network, and closes the network when f returns.
func Run(t *testing.T, f func(t *testing.T, n *Network)) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		defer n.Close()
		f(t, n)
	})
}

// Sleep waits until d has passed and everything due by then has happened: every other goroutine of the
// bubble is blocked again.
func Sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// New returns a network without hosts. It runs a goroutine that Close ends.
func New() *Network {
	n := &Network{
		began:     time.Now(),
		events:    heaps.New(event.before, nil),
		timer:     time.NewTimer(never),
		wake:      never,
		listeners: map[netip.AddrPort]*listener{},
		packets:   map[netip.AddrPort]*packetConn{},
		known:     map[netip.Addr]bool{},
		conns:     map[*Conn]bool{},
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

// Now is the time since the network was made.
func (n *Network) Now() time.Duration { return time.Since(n.began) }

// Lock takes the mutex of the network, under which taps are called. Nothing moves while it is held.
func (n *Network) Lock() { n.mu.Lock() }

// Unlock releases the mutex.
func (n *Network) Unlock() { n.mu.Unlock() }

// Addresses is how many different addresses the hosts have.
func (n *Network) Addresses() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.known)
}

// Close ends every connection and listener; whatever still waits on one returns with net.ErrClosed.
func (n *Network) Close() {
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

// After runs do in d, under the mutex. The caller holds n.mu.
func (n *Network) After(d time.Duration, do func()) {
	n.seq++
	at := n.Now() + d
	n.events.Push(event{at: at, seq: n.seq, do: do})
	if at < n.wake {
		n.setTimer(at, d)
	}
}

// Pause returns a channel that is closed in d. The runtime fires the timers of one instant in random order;
// pauses end in the order they began.
func (n *Network) Pause(d time.Duration) <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	over := make(chan struct{})
	n.After(d, func() { close(over) })
	return over
}

// The caller holds n.mu.
func (n *Network) setTimer(at, d time.Duration) {
	n.wake = at
	n.timer.Reset(d)
}

// run does everything that is due, in order.
func (n *Network) run() {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.Now()
	n.wake = 0 // so that the events that these make leave the timer alone
	for n.events.Len() > 0 && n.events.First().at <= now {
		n.events.Pop().do()
	}
	n.wake = never
	if n.events.Len() > 0 {
		n.setTimer(n.events.First().at, n.events.First().at-now)
	}
}

// event is something that happens at a time since the network was made.
type event struct {
	at  time.Duration
	seq uint64
	do  func()
}

// before orders events by time; those of one instant run in the order in which they were made.
func (e event) before(other event) bool {
	return e.at < other.at || e.at == other.at && e.seq < other.seq
}
