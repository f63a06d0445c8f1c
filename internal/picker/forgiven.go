package picker

// forgiven remembers the latest blocks that were asked for and released, and how often: at least maxForgiven of
// them, at most twice as many.
type forgiven struct{ fresh, old map[Block]int }

// maxForgiven is so many blocks that what was released before them is not expected any more.
const maxForgiven = 4096

func (l *forgiven) add(id Block) {
	if _, known := l.fresh[id]; !known && len(l.fresh) >= maxForgiven {
		l.old, l.fresh = l.fresh, nil
	}
	if l.fresh == nil {
		l.fresh = make(map[Block]int)
	}
	l.fresh[id] += l.old[id] + 1
	delete(l.old, id)
}

// take forgets id once and tells whether it was remembered.
func (l *forgiven) take(id Block) bool {
	for _, m := range []map[Block]int{l.fresh, l.old} {
		if m[id] == 0 {
			continue
		}
		if m[id]--; m[id] == 0 {
			delete(m, id)
		}
		return true
	}
	return false
}

func (l *forgiven) has(id Block) bool { return l.fresh[id]+l.old[id] > 0 }
