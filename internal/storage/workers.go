package storage

import (
	"context"
	"sync"
)

const (
	// maxFirst bounds the goroutines that hash content in all stores together. Each has a buffer of 256 KiB, and a thread of the system
	// while it waits for the disk, of which a program may have 10,000.
	maxFirst = 256
	// maxFurther is how many there may be for a store to have more than one.
	maxFurther = 64
)

// Workers bounds the goroutines that hash the content of many stores at a time. The zero value is ready. It may be used from any
// goroutine.
type Workers struct {
	mu      sync.Mutex
	used    int
	waiting []chan struct{} // for their first; closed when it is there
}

// first waits for the first goroutine of a store. It reports false if ctx ends before.
func (w *Workers) first(ctx context.Context) bool {
	w.mu.Lock()
	turn := make(chan struct{})
	w.waiting = append(w.waiting, turn)
	w.grant()
	w.mu.Unlock()
	select {
	case <-turn:
		return true
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for k, other := range w.waiting {
		if other == turn {
			w.waiting = append(w.waiting[:k:k], w.waiting[k+1:]...)
			return false
		}
	}
	w.used-- // it was granted in the same moment
	w.grant()
	return false
}

// another reports whether a store that has one may have another, and counts it if so.
func (w *Workers) another() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.used >= maxFurther {
		return false
	}
	w.used++
	return true
}

// done ends one.
func (w *Workers) done() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.used--
	w.grant()
}

// grant gives those that wait their first. The caller holds w.mu.
func (w *Workers) grant() {
	for w.used < maxFirst && len(w.waiting) > 0 {
		close(w.waiting[0])
		w.waiting = w.waiting[1:]
		w.used++
	}
}
