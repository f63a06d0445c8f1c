package picker

// forgiven counts the blocks that a supplier was asked for and need not send any more. It may send each of them as
// often as it was asked, and that is no offence. At least the maxForgiven latest blocks are remembered, at most
// twice as many.
type forgiven struct{ latest, older map[Block]int }

const maxForgiven = 4096

func (f *forgiven) add(b Block) {
	if _, known := f.latest[b]; !known && len(f.latest) >= maxForgiven {
		f.older, f.latest = f.latest, nil
	}
	if f.latest == nil {
		f.latest = make(map[Block]int)
	}
	f.latest[b] += f.older[b] + 1
	delete(f.older, b)
}

// take forgets a block once, and reports whether it was remembered.
func (f *forgiven) take(b Block) bool {
	for _, m := range []map[Block]int{f.latest, f.older} {
		if m[b] == 0 {
			continue
		}
		if m[b]--; m[b] == 0 {
			delete(m, b)
		}
		return true
	}
	return false
}

func (f *forgiven) has(b Block) bool { return f.latest[b]+f.older[b] > 0 }
