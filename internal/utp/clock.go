package utp

import (
	"container/heap"
	"sync"
	"time"
)

// clock calls tick of connections at the times they ask for. It keeps one timer for all, and no goroutine
// while nothing is due.
type clock struct {
	s *Socket

	mu      sync.Mutex
	heap    connHeap
	timer   *time.Timer
	set     time.Duration // when the timer fires; 0 is not at all
	stopped bool
	due     []*conn // memory for run
}

// schedule has c.tick called at a time, unless it already will be sooner.
func (k *clock) schedule(c *conn, at time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.stopped:
		return
	case c.wake == 0:
		c.wake = at
		heap.Push(&k.heap, c)
	case at < c.wake:
		c.wake = at
		heap.Fix(&k.heap, c.slot)
	}
	k.arm()
}

// cancel takes a schedule back.
func (k *clock) cancel(c *conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c.wake != 0 {
		c.wake = 0
		heap.Remove(&k.heap, c.slot)
	}
}

// arm sets the timer for the first that is due. The caller holds k.mu.
func (k *clock) arm() {
	if len(k.heap) == 0 || k.stopped {
		return
	}
	first := k.heap[0].wake
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
	for len(k.heap) > 0 && k.heap[0].wake <= now {
		c := heap.Pop(&k.heap).(*conn)
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
	for _, c := range k.heap {
		c.wake = 0
	}
	k.heap = nil
}

// connHeap has the connection that is due first at its head.
type connHeap []*conn

func (h connHeap) Len() int           { return len(h) }
func (h connHeap) Less(i, j int) bool { return h[i].wake < h[j].wake }
func (h connHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].slot, h[j].slot = i, j
}
func (h *connHeap) Push(x any) {
	c := x.(*conn)
	c.slot = len(*h)
	*h = append(*h, c)
}
func (h *connHeap) Pop() any {
	last := len(*h) - 1
	c := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return c
}
