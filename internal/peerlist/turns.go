package peerlist

import (
	"container/list"
	"iter"
	"time"
)

// turns is the order in which those that wait for something get it: as they came, while they go on to ask. To join and to
// leave cost the same however many wait. The zero value is ready.
type turns struct {
	order list.List // of *waiter, the next one first
	place map[any]*list.Element
}

// waiter is who waits, such as a download for a dial.
type waiter struct {
	by     any
	until  time.Time // when it no longer waits, unless it asks again
	kept   time.Time // until when it keeps its turn in case that it asks again
	late   bool      // those that are not come before it
	within turns     // the order of those that share its turns, if it is a prefix
	size   int       // how many waited within it, if it is a network, when they were last counted, and all that came since
}

// wait adds one behind those that wait already, or has it wait longer. It keeps no turn once it does not wait.
func (t *turns) wait(by any, until time.Time) {
	w := t.join(by)
	w.until, w.kept = until, until
}

// join returns a waiter, which comes last if it is new.
func (t *turns) join(by any) *waiter {
	if w := t.waiter(by); w != nil {
		return w
	}
	if t.place == nil {
		t.place = make(map[any]*list.Element)
	}
	w := &waiter{by: by}
	t.place[by] = t.order.PushBack(w)
	return w
}

// waiter returns one that waits, or keeps its turn; nil if it does not.
func (t *turns) waiter(by any) *waiter {
	if e := t.place[by]; e != nil {
		return e.Value.(*waiter)
	}
	return nil
}

// has reports whether one waits, or keeps its turn.
func (t *turns) has(by any) bool { return t.place[by] != nil }

// served removes one that waits no longer.
func (t *turns) served(by any) {
	if e := t.place[by]; e != nil {
		t.order.Remove(e)
		delete(t.place, by)
	}
}

// ahead returns how many wait that come before one, which need not wait itself and may be late. It counts to most.
func (t *turns) ahead(by any, late bool, most int, now time.Time) (n int) {
	passed := false // this one
	for w := range t.all(now) {
		switch {
		case n >= most || passed && !late:
			return n
		case w.by == by:
			passed = true
		case now.After(w.until): // it keeps its turn, but does not wait
		case late && !w.late || late == w.late && !passed:
			n++
		}
	}
	return n
}

// each yields those that wait or keep their turns, or did.
func (t *turns) each() iter.Seq[*waiter] {
	return func(yield func(*waiter) bool) {
		for e := t.order.Front(); e != nil && yield(e.Value.(*waiter)); e = e.Next() {
		}
	}
}

// all yields those that wait or keep their turns, and forgets the others on the way.
func (t *turns) all(now time.Time) iter.Seq[*waiter] {
	return func(yield func(*waiter) bool) {
		for e := t.order.Front(); e != nil; {
			w, next := e.Value.(*waiter), e.Next()
			if now.After(w.kept) {
				t.served(w.by)
			} else if !yield(w) {
				return
			}
			e = next
		}
	}
}
