package peerlist

import "cmp"

// promise compares which of two candidates is more promising: it is negative if l is.
func (k *candidate) promise(l *candidate) int {
	return cmp.Or(
		compareBool(k.standing != isGivenUp, l.standing != isGivenUp),
		cmp.Compare(l.failures, k.failures),
		compareBool(k.useful, l.useful),
		cmp.Compare(l.from, k.from),
		cmp.Compare(l.nth, k.nth), // each prefix in turn
		cmp.Compare(k.priority, l.priority),
		k.addr.Compare(l.addr),
	)
}

func (k *candidate) better(l *candidate) bool { return k.promise(l) > 0 }

func (k *candidate) sooner(l *candidate) bool {
	return cmp.Or(k.due.Compare(l.due), k.addr.Compare(l.addr)) < 0
}

// queue is a heap of candidates that know their places.
type queue struct {
	list []*candidate
	less func(k, l *candidate) bool
}

func (q *queue) Len() int           { return len(q.list) }
func (q *queue) Less(i, j int) bool { return q.less(q.list[i], q.list[j]) }

func (q *queue) Swap(i, j int) {
	q.list[i], q.list[j] = q.list[j], q.list[i]
	q.list[i].place, q.list[j].place = i, j
}

func (q *queue) Push(x any) {
	k := x.(*candidate)
	k.place = len(q.list)
	q.list = append(q.list, k)
}

func (q *queue) Pop() any {
	n := len(q.list) - 1
	k := q.list[n]
	q.list[n] = nil
	q.list = q.list[:n]
	return k
}
