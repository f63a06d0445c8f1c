package utp

import (
	"sync"
	"time"

	"github.com/shoal-go/torrent/internal/heaps"
)

// clock calls tick of connections at the times they ask for. It keeps one timer for all, and no goroutine
// while nothing is due.
type clock struct {
	s *Socket

	mu      sync.Mutex
	heap    heaps.Heap[*conn] // by when they are due
	timer   *time.Timer
	set     time.Duration // when the timer fires; 0 is not at all
	stopped bool
	due     []*conn // memory for run
}

// init prepares the zero clock.
func (k *clock) init(s *Socket) {
	k.s = s
	k.heap = heaps.New(
		func(a, b *conn) bool { return a.wake < b.wake },
		func(c *conn, at int) { c.slot = at },
	)
}

// schedule arranges a call of c.tick at a time, unless an earlier call is scheduled already.
func (k *clock) schedule(c *conn, at time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.stopped:
		return
	case c.wake == 0:
		c.wake = at
		k.heap.Push(c)
	case at < c.wake:
		c.wake = at
		k.heap.Fix(c.slot)
	}
	k.arm()
}

// cancel cancels a scheduled call.
func (k *clock) cancel(c *conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c.wake != 0 {
		c.wake = 0
		k.heap.Remove(c.slot)
	}
}

// arm sets the timer for the first that is due. The caller holds k.mu.
func (k *clock) arm() {
	if k.heap.Len() == 0 || k.stopped {
		return
	}
	first := k.heap.First().wake
	if k.set != 0 && k.set <= first {
		return
	}
	k.set = first
	wait := max(first-k.s.now(), 0)
	if k.timer == nil {
		k.timer = time.AfterFunc(wait, k.run)
	} else {
		k.timer.Reset(wait)
	}
}

// run calls those that are due.
func (k *clock) run() {
	k.mu.Lock()
	now := k.s.now()
	due := k.due[:0]
	k.due = nil
	for k.heap.Len() > 0 && k.heap.First().wake <= now {
		c := k.heap.Pop()
		c.wake = 0
		due = append(due, c)
	}
	k.set = 0
	k.arm()
	k.mu.Unlock()
	for _, c := range due {
		c.tick()
	}
	clear(due)
	k.mu.Lock()
	k.due = due
	k.mu.Unlock()
}

func (k *clock) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stopped = true
	if k.timer != nil {
		k.timer.Stop()
	}
	for c := range k.heap.All() {
		c.wake = 0
	}
	k.heap.Clear()
}
