package ratelimit

import (
	"container/list"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// turnBytes is how much a sender may send in one turn.
const turnBytes = 16 << 10

// A Queue lets senders whose bytes count against the same limit take turns. A sender that asks for more at once gets no larger share for
// that, and one that leaves the queue does not delay those behind it. All senders to one network share their turns, even if they belong
// to different downloads.
type Queue struct {
	limit Limits // one limiter

	mu      sync.Mutex
	waiting list.List             // of *Turn, in order
	behind  map[string]*list.List // those that wait behind another of their network that is in waiting, by its name
	paying  bool                  // whether the first has a reservation
	first   reservation           // that is paid off before the first may pass
	timer   *time.Timer           // of the next deal; nil before it is needed
}

// NewQueue returns the queue of a limiter.
func NewQueue(l *rate.Limiter) *Queue { return &Queue{limit: Limits{l}} }

// deal lets those pass whose turn it is, and wakes them, except the caller, if it is one of them. The caller holds q.mu.
func (q *Queue) deal(caller *Turn) {
	now := time.Now()
	for front := q.waiting.Front(); front != nil; front = q.waiting.Front() {
		t := front.Value.(*Turn)
		wait := recheck
		if !q.paying {
			q.first, q.paying = q.limit.reserve(now, t.slice())
		}
		if q.paying {
			wait = q.first.delay(now)
		}
		if wait > slack {
			q.dealAfter(min(wait-slack/2, recheck))
			return
		}
		q.paying = false
		q.remove(t)
		t.passed = true
		if t != caller {
			t.wake()
		}
	}
}

// dealAfter sets the timer. The caller holds q.mu.
func (q *Queue) dealAfter(wait time.Duration) {
	if q.timer != nil {
		q.timer.Reset(wait)
		return
	}
	q.timer = time.AfterFunc(wait, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.deal(nil)
	})
}

// add puts t behind those that wait. The caller holds q.mu.
func (q *Queue) add(t *Turn) {
	l := q.behind[t.network]
	if t.behind = l != nil; t.behind {
		t.place = l.PushBack(t)
		return
	}
	t.place = q.waiting.PushBack(t)
	if t.network != "" {
		if q.behind == nil {
			q.behind = make(map[string]*list.List)
		}
		q.behind[t.network] = new(list.List)
	}
}

// remove removes t. If it is the one of its network that has a place among the others, the next one of that network has a place behind
// them. The caller holds q.mu.
func (q *Queue) remove(t *Turn) {
	l := q.behind[t.network]
	if t.behind {
		l.Remove(t.place)
	} else {
		q.waiting.Remove(t.place)
		switch {
		case l == nil:
		case l.Len() == 0:
			delete(q.behind, t.network)
		default:
			next := l.Remove(l.Front()).(*Turn)
			next.place, next.behind = q.waiting.PushBack(next), false
		}
	}
	t.place, t.behind = nil, false
}

// pass reports whether t may pass for its next slice. If not, it has a place in the queue.
func (q *Queue) pass(t *Turn) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.place == nil && !t.passed {
		if q.add(t); t.place == q.waiting.Front() {
			q.deal(t)
		}
	}
	passed := t.passed
	t.passed = false
	return passed
}

// leave takes t out of the queue, if it waits there, and returns n bytes for which it passed before.
func (q *Queue) leave(t *Turn, n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.place != nil {
		if q.paying && t.place == q.waiting.Front() {
			q.paying, t.passed = false, true
		}
		q.remove(t)
	}
	if t.passed {
		n += t.slice()
	}
	t.passed = false
	q.putBack(n)
}

// refund returns n bytes.
func (q *Queue) refund(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.putBack(n)
}

// putBack returns n bytes, and lets those pass whose turn it is with them. The caller holds q.mu.
func (q *Queue) putBack(n int) {
	if n > 0 {
		putBack(q.limit[0], time.Now(), n)
		q.deal(nil)
	}
}

// A Turn is one sender's way through the queues of its limits. It belongs to one goroutine.
type Turn struct {
	queues  []*Queue
	network string // that it sends to; empty if it shares its turns with no other
	wake    func()

	n    int // bytes that are to be sent; 0 is none
	paid int // of these, those that all queues let pass
	at   int // the queue in which the next slice waits; it has passed those before

	// Guarded by the mutex of that queue.
	place  *list.Element
	behind bool // whether that is behind another of its network
	passed bool
}

// NewTurn returns a turn that is in no queue yet. network is the name of the network that it sends to, or empty if it does not share its
// turns. wake is called, perhaps from another goroutine and under a lock, when it is time to call Ready again.
func NewTurn(network string, wake func(), queues ...*Queue) *Turn {
	return &Turn{queues: queues, network: network, wake: wake}
}

// slice is how many bytes the turn is about.
func (t *Turn) slice() int { return min(t.n-t.paid, turnBytes) }

// Ready reports whether n bytes may be sent now. If not, it takes a place in the queue for them, unless the last call did so already.
func (t *Turn) Ready(n int) bool {
	if t.n != n {
		t.Leave()
		t.n = n
	}
	for t.paid < n {
		for ; t.at < len(t.queues); t.at++ {
			if !t.queues[t.at].pass(t) {
				return false
			}
		}
		t.paid += t.slice()
		t.at = 0
	}
	return true
}

// Sent ends the turn after n bytes went out. What was taken from the limits beyond them is refunded.
func (t *Turn) Sent(n int) {
	if t.n == 0 {
		return
	}
	for i, q := range t.queues {
		switch {
		case i < t.at:
			q.refund(t.paid + t.slice() - n)
		case i == t.at:
			q.leave(t, t.paid-n)
		default:
			q.refund(t.paid - n)
		}
	}
	t.n, t.paid, t.at = 0, 0, 0
}

// Leave ends the turn with nothing sent.
func (t *Turn) Leave() { t.Sent(0) }
