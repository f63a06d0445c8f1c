package picker

import "github.com/shoal-go/torrent/internal/bits"

// Prioritise sets the priority of piece i; 0 is not wanted. The caller cancels requests for a
// piece that is no longer wanted.
func (pk *Picker) Prioritise(i int, priority uint8) (cancel []Request) {
	_, doubted := pk.doubted[i]
	if !pk.heap.prioritise(i, priority) || doubted || pk.have.Has(i) {
		return nil
	}
	wanted, p := priority > 0, pk.started[int32(i)]
	if wanted != pk.need.Has(i) {
		pk.setNeed(i, wanted)
		if p == nil && wanted {
			pk.shelve(i)
		} else if p == nil {
			pk.unshelve(i)
		}
	}
	if p != nil {
		pk.close(p) // its place among the open pieces is another
		p.priority = priority
		if !wanted {
			cancel = pk.withdrawAll(p)
		}
		pk.reopen(p)
		pk.retire(p)
	}
	return cancel
}

// Passed records that piece i is whole, has its hash and is stored. The caller cancels requests for it.
//
// digests are of its blocks; they are needed only where Started said that the piece is on parole. liars are the
// origins of suppliers that sent other blocks before.
func (pk *Picker) Passed(i int, digests []uint64) (cancel []Request, liars []any) {
	liars = pk.clear(i, digests)
	if p := pk.started[int32(i)]; p != nil {
		cancel = pk.withdrawAll(p)
		pk.forget(p)
	}
	if pk.heap.holds(i) {
		pk.unshelve(i)
	}
	pk.have.Add(i)
	delete(pk.doubted, i)
	pk.setNeed(i, false)
	return cancel, liars
}

// Doubt records that piece i may not be what was verified, and reports whether it was verified at all. It is
// neither verified nor needed until Passed or Lost says which.
func (pk *Picker) Doubt(i int) bool {
	had := pk.have.Remove(i)
	if had {
		pk.doubted[i] = struct{}{}
	}
	return had
}

// Doubted reports whether piece i is in doubt.
func (pk *Picker) Doubted(i int) bool {
	_, doubted := pk.doubted[i]
	return doubted
}

// Lost records that piece i, which was in doubt, is not there any more.
func (pk *Picker) Lost(i int) {
	delete(pk.doubted, i)
	if pk.heap.priority[i] > 0 {
		pk.setNeed(i, true)
		pk.shelve(i)
	}
}

// Restore starts piece i with the blocks that storage holds from an earlier run.
func (pk *Picker) Restore(i int, blocks *bits.Set) {
	p := pk.start(i)
	for k := range blocks.All() {
		pk.block(p, int32(k)).sender = fromStorage
		p.free--
		p.left--
	}
	if p.free == 0 {
		pk.close(p)
	}
}

// Abandon drops the blocks of piece i, if it is started and not yet complete. The caller cancels requests for
// it.
func (pk *Picker) Abandon(i int) (cancel []Request) {
	p := pk.started[int32(i)]
	if p == nil || p.left == 0 {
		return nil
	}
	cancel = pk.withdrawAll(p)
	pk.reset(p)
	pk.retire(p)
	return cancel
}

// shelve puts piece i into the heap.
func (pk *Picker) shelve(i int) {
	pk.heap.push(i)
	pk.countFresh(i, 1)
}

// unshelve takes piece i out of the heap.
func (pk *Picker) unshelve(i int) {
	pk.heap.remove(i)
	pk.countFresh(i, -1)
}

// setNeed sets whether piece i is wanted and not verified.
func (pk *Picker) setNeed(i int, need bool) {
	switch {
	case need == pk.need.Has(i):
	case need:
		pk.need.Add(i)
		pk.countWant(i, 1)
	default:
		pk.need.Remove(i)
		pk.countWant(i, -1)
	}
}
