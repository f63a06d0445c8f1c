package peerlist

import (
	"container/list"
	"iter"
	"time"
)

// turns is the order in which those that wait for something get it: as they came, while they go on to ask. It costs the same however
// many wait. The zero value is ready.
type turns struct {
	keeps time.Duration // how long those that no longer wait keep their turn in case that they ask again
	order list.List     // of *waiter, the next one first
	place map[any]*list.Element
}

// waiter is who waits, such as a download for a dial.
type waiter struct {
	by     any
	until  time.Time // when it no longer waits, unless it asks again
	within turns     // the order of those that share its turns, if it is a prefix
}

// wait adds one behind those that wait already, or has it wait longer.
func (t *turns) wait(by any, until time.Time) {
	if e := t.place[by]; e != nil {
		e.Value.(*waiter).until = until
		return
	}
	t.push(&waiter{by: by, until: until})
}

func (t *turns) push(w *waiter) {
	if t.place == nil {
		t.place = make(map[any]*list.Element)
	}
	t.place[w.by] = t.order.PushBack(w)
}

// waiter returns one that waits; nil if it does not.
func (t *turns) waiter(by any) *waiter {
	if e := t.place[by]; e != nil {
		return e.Value.(*waiter)
	}
	return nil
}

// has reports whether one waits.
func (t *turns) has(by any) bool { return t.place[by] != nil }

// served removes one that waits no longer.
func (t *turns) served(by any) {
	if e := t.place[by]; e != nil {
		t.order.Remove(e)
		delete(t.place, by)
	}
}

// ahead returns how many wait that come before one, which need not wait itself. It counts to most.
func (t *turns) ahead(by any, most int, now time.Time) (n int) {
	for other := range t.all(now) {
		if n >= most || other == by {
			break
		}
		n++
	}
	return n
}

// all yields those that wait, and forgets those on the way that have not asked for too long.
func (t *turns) all(now time.Time) iter.Seq[any] {
	return func(yield func(any) bool) {
		for e := t.order.Front(); e != nil; {
			w, next := e.Value.(*waiter), e.Next()
			switch {
			case now.After(w.until.Add(t.keeps)):
				t.served(w.by)
			case now.After(w.until): // it is passed over
			case !yield(w.by):
				return
			}
			e = next
		}
	}
}
