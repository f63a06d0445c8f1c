// Package heaps has a heap whose elements know their places in it, so that one can be moved or removed from the middle.
//
// It is plain data. A Heap belongs to what holds it, whose lock guards it.
package heaps

import (
	"container/heap"
	"iter"
	"slices"
)

// A Heap holds elements, the least of them first.
type Heap[E any] struct {
	list  []E
	less  func(a, b E) bool
	place func(e E, at int)
}

// New returns a heap in the order that less gives. place is told where an element is whenever that changes, and -1 once
// it is no longer there; it may be nil.
func New[E any](less func(a, b E) bool, place func(e E, at int)) Heap[E] {
	if place == nil {
		place = func(E, int) {}
	}
	return Heap[E]{less: less, place: place}
}

// Len is how many elements there are.
func (h *Heap[E]) Len() int { return len(h.list) }

// First is the least element. There must be one.
func (h *Heap[E]) First() E { return h.list[0] }

// All yields the elements in no order.
func (h *Heap[E]) All() iter.Seq[E] { return slices.Values(h.list) }

// Push adds an element.
func (h *Heap[E]) Push(e E) { heap.Push((*inner[E])(h), e) }

// Pop removes the least element. There must be one.
func (h *Heap[E]) Pop() E { return heap.Pop((*inner[E])(h)).(E) }

// Remove removes the element at a place.
func (h *Heap[E]) Remove(at int) { heap.Remove((*inner[E])(h), at) }

// Fix restores the order after the element at a place has changed.
func (h *Heap[E]) Fix(at int) { heap.Fix((*inner[E])(h), at) }

// FixAll restores the order after any of the elements have changed.
func (h *Heap[E]) FixAll() { heap.Init((*inner[E])(h)) }

// Clear removes all elements.
func (h *Heap[E]) Clear() {
	for _, e := range h.list {
		h.place(e, -1)
	}
	h.list = nil
}

// inner is a Heap as container/heap wants it.
type inner[E any] Heap[E]

func (h *inner[E]) Len() int           { return len(h.list) }
func (h *inner[E]) Less(i, j int) bool { return h.less(h.list[i], h.list[j]) }

func (h *inner[E]) Swap(i, j int) {
	h.list[i], h.list[j] = h.list[j], h.list[i]
	h.place(h.list[i], i)
	h.place(h.list[j], j)
}

func (h *inner[E]) Push(x any) {
	e := x.(E)
	h.place(e, len(h.list))
	h.list = append(h.list, e)
}

func (h *inner[E]) Pop() any {
	last := len(h.list) - 1
	e := h.list[last]
	clear(h.list[last:])
	h.list = h.list[:last]
	h.place(e, -1)
	return e
}
