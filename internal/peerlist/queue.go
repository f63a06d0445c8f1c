package peerlist

import (
	"cmp"

	"github.com/shoal-go/torrent/internal/heaps"
)

// promise compares which of two candidates is more promising: it is negative if l is.
func (k *candidate) promise(l *candidate) int {
	return cmp.Or(
		compareBool(k.standing != isGivenUp, l.standing != isGivenUp),
		cmp.Compare(l.yielded, k.yielded), // or it would take the next place before those that were never tried
		cmp.Compare(l.failures, k.failures),
		compareBool(k.useful, l.useful),
		cmp.Compare(l.from, k.from),
		cmp.Compare(l.crowd, k.crowd), // each network in turn
		cmp.Compare(k.priority, l.priority),
		k.addr.Compare(l.addr),
	)
}

func (k *candidate) better(l *candidate) bool { return k.promise(l) > 0 }

func (k *candidate) sooner(l *candidate) bool {
	return cmp.Or(k.due.Compare(l.due), k.addr.Compare(l.addr)) < 0
}

// newQueue returns a heap of candidates that know their places.
func newQueue(less func(k, l *candidate) bool) heaps.Heap[*candidate] {
	return heaps.New(less, func(k *candidate, at int) { k.place = at })
}
