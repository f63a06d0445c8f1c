package picker

// forgiven counts the released requests to a supplier. The supplier may still answer each of them: the block does not count as
// unrequested. At least the latest maxForgiven blocks are remembered, at most twice as many.
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

// take removes one request for a block, and reports whether there was one.
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
