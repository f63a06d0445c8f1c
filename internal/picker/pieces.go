package picker

import "github.com/shoal-go/torrent/internal/bits"

// Prioritise sets the priority of piece i. Priority 0 means not wanted. If the piece is no longer wanted, cancel has the requests
// for it, which the caller cancels.
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
		pk.close(p) // its position in pk.open changes
		p.priority = priority
		if !wanted {
			cancel = pk.withdrawAll(p)
		}
		pk.reopen(p)
		pk.retire(p)
	}
	return cancel
}

// Passed records that piece i is complete, matches its hash and is stored. The caller cancels the requests in cancel.
//
// digests has a digest of each block. It is needed only if suppliers sent the piece and Started reports that it is on parole. liars
// are the origins of the suppliers that sent other blocks before.
func (pk *Picker) Passed(i int, digests []uint64) (cancel []Request, liars []any) {
	liars = pk.clear(i, digests)
	if p := pk.started[int32(i)]; p != nil {
		if p.left == 0 {
			pk.senders.credit(p)
		}
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

// Doubt records that the content of piece i may have changed since it was verified. The piece is neither verified nor needed
// until Passed or Lost is called. If the piece is not verified, Doubt does nothing and reports false.
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

// Lost records that piece i, which was in doubt, is missing or wrong.
func (pk *Picker) Lost(i int) {
	delete(pk.doubted, i)
	if pk.heap.priority[i] > 0 {
		pk.setNeed(i, true)
		pk.shelve(i)
	}
}

// Restore starts piece i with the given blocks, which storage holds from an earlier run.
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

// Abandon drops the blocks of piece i if the piece is started and not complete. The caller cancels the requests in cancel.
func (pk *Picker) Abandon(i int) (cancel []Request) {
	p := pk.started[int32(i)]
	if p == nil || p.left == 0 {
		return nil
	}
	return pk.discard(p)
}

// Discard drops the blocks of piece i, which is complete and was hashed: storage may no longer hold them. No supplier is to blame.
// The caller cancels the requests in cancel.
func (pk *Picker) Discard(i int) (cancel []Request) {
	if p := pk.started[int32(i)]; p != nil {
		cancel = pk.discard(p)
	}
	return cancel
}

func (pk *Picker) discard(p *startedPiece) (cancel []Request) {
	cancel = pk.withdrawAll(p)
	pk.reset(p)
	pk.retire(p)
	return cancel
}

// shelve adds piece i to the heap.
func (pk *Picker) shelve(i int) {
	pk.heap.push(i)
	for s := range pk.counting(i) {
		s.fresh++
	}
}

// unshelve removes piece i from the heap.
func (pk *Picker) unshelve(i int) {
	pk.heap.remove(i)
	for s := range pk.counting(i) {
		s.fresh--
	}
}

// setNeed adds piece i to need or removes it.
func (pk *Picker) setNeed(i int, need bool) {
	switch {
	case need == pk.need.Has(i):
	case need:
		pk.need.Add(i)
		for s := range pk.counting(i) {
			s.want++
		}
	default:
		pk.need.Remove(i)
		for s := range pk.counting(i) {
			s.want--
		}
	}
}
