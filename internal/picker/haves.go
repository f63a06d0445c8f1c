package picker

import (
	"iter"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
)

// Bitfield records that s has the pieces in has and no others. Ownership of has passes to the Picker.
func (pk *Picker) Bitfield(s *Supplier, has bits.Set) {
	pk.uncount(s)
	s.all, s.near, s.has, s.denied = false, false, has, nil
	pk.count(s)
}

// Have records that s has piece i, and reports whether that is new.
func (pk *Picker) Have(s *Supplier, i int) bool {
	if s.all || !s.has.Add(i) {
		return false
	}
	pk.countOne(s, i, 1)
	if pk.need.Has(i) {
		s.want++
		if pk.heap.holds(i) {
			s.fresh++
		}
	}
	s.open += pk.isOpen(i)
	return true
}

// Haves records that s has the pieces in has, besides those that it is known to have, and reports whether any of them are new.
// Ownership of has passes to the Picker.
func (pk *Picker) Haves(s *Supplier, has bits.Set) (news bool) {
	pk.work += int64(has.Len() / piecesPerStep)
	if s.all {
		return false
	}
	has.RemoveAll(&s.has)
	pk.work += int64(has.Count())
	if has.Count() <= min(has.Len()/8, maxRanked) {
		for i := range has.All() {
			pk.Have(s, i)
		}
		return has.Count() > 0
	}
	if !s.Runs && !s.near {
		pk.heap.count(&has, 1)
	}
	s.has.AddAll(&has)
	if s.has.Full() {
		pk.Bitfield(s, s.has)
	} else {
		pk.countNeeded(s)
	}
	return true
}

// Tidy does a bounded part of what long bitfields have left to be done. It is called each second, and takes some milliseconds at most.
// Until all of it is done, pieces may be started in an order that is by an older availability.
func (pk *Picker) Tidy() { pk.heap.tidy() }

// maxLost is the greatest length of Supplier.lost.
const maxLost = 64

// HaveAll records that s has every piece, and reports whether that is new.
func (pk *Picker) HaveAll(s *Supplier) (news bool) {
	missing := s.pieces - s.Count()
	if missing == 0 {
		return false
	}
	for _, i := range s.lost { // often these are all that s lacks, and no pass over its bitfield is needed
		if pk.Have(s, int(i)) {
			missing--
		}
	}
	s.lost = s.lost[:0]
	if missing > 0 {
		pk.Haves(s, bits.Full(s.pieces))
	}
	return true
}

// DontHave records that s no longer has piece i (BEP 54), and releases the requests to s for that piece. The caller cancels
// these: if s soon has the piece again, it might send the blocks twice.
func (pk *Picker) DontHave(s *Supplier, i int) (cancel []Request) {
	if s.Has(i) && len(s.lost) < maxLost && !slices.Contains(s.lost, int32(i)) {
		s.lost = append(s.lost, int32(i))
	}
	s.denied = slices.DeleteFunc(s.denied, func(k int32) bool { return int(k) == i })
	pk.lose(s, i)
	return pk.takeBack(s, func(b Block) bool { return int(b.Piece) == i })
}

// deniedTime is how long a supplier is assumed to lack a piece because it rejects requests for it. There may have been another reason.
const deniedTime = 5 * time.Second

// refuse records that s rejects requests for piece i.
func (pk *Picker) refuse(s *Supplier, i int32, now time.Time) {
	if len(s.denied) == 0 {
		s.regainAt = now.Add(deniedTime)
	}
	if s.Has(int(i)) && len(s.denied) < maxLost {
		s.denied = append(s.denied, i)
	}
	pk.lose(s, int(i))
}

// Regain assumes again that s has the pieces for which it rejected requests some time ago, and reports whether there are any. If it has no
// credit, these are only the pieces that no other supplier has: strangers could come to keep what others send.
func (pk *Picker) Regain(s *Supplier, now time.Time) (news bool) {
	if len(s.denied) == 0 || now.Before(s.regainAt) {
		return false
	}
	s.denied = slices.DeleteFunc(s.denied, func(i int32) bool {
		others := pk.creditOf(s) == 0 && slices.ContainsFunc(pk.suppliers, func(o *Supplier) bool { return o.Has(int(i)) })
		if !others {
			news = pk.Have(s, int(i)) || news
		}
		return !others
	})
	s.refused, s.regainAt = -1, now.Add(deniedTime)
	return news
}

// Lose records that s no longer has the pieces first to end-1. The caller releases the requests to s for them.
func (pk *Picker) Lose(s *Supplier, first, end int) {
	for i := first; i < end; i++ {
		if s.Has(i) {
			pk.lose(s, i)
		}
	}
}

func (pk *Picker) lose(s *Supplier, i int) {
	if s.all {
		pk.work += int64(pk.layout.NumPieces() / piecesPerStep)
		s.all, s.near, s.has = false, true, bits.Full(pk.layout.NumPieces())
		s.has.Remove(i)
		pk.countNeeded(s)
		return
	}
	if !s.has.Remove(i) {
		return
	}
	pk.countOne(s, i, -1)
	if pk.need.Has(i) {
		s.want--
		if pk.heap.holds(i) {
			s.fresh--
		}
	}
	s.open -= pk.isOpen(i)
}

// isOpen returns 1 if piece i is in pk.open, else 0.
func (pk *Picker) isOpen(i int) int {
	if p := pk.started[int32(i)]; p != nil && p.open {
		return 1
	}
	return 0
}

// Interesting reports whether s has a piece that is needed.
func (pk *Picker) Interesting(s *Supplier) bool {
	return s.all && pk.need.Count() > 0 || !s.all && s.want > 0
}

// count adds the pieces of s to the availability, and computes the counters of s.
func (pk *Picker) count(s *Supplier) {
	if s.has.Full() && s.has.Len() > 0 {
		s.all, s.has = true, bits.Set{}
	}
	if s.all {
		return
	}
	if !s.Runs {
		pk.heap.count(&s.has, 1)
	}
	pk.countNeeded(s)
}

// countNeeded computes the counters of s.
func (pk *Picker) countNeeded(s *Supplier) {
	s.want = s.has.CountAnd(&pk.need)
	s.fresh, s.open = s.want, 0
	if s.has.Count() > 0 {
		pk.work += int64(len(pk.started))
		for i, p := range pk.started {
			if !s.has.Has(int(i)) {
				continue
			}
			if pk.need.Has(int(i)) {
				s.fresh--
			}
			if p.open {
				s.open++
			}
		}
	}
}

func (pk *Picker) uncount(s *Supplier) {
	if !s.all && !s.near && !s.Runs {
		pk.heap.count(&s.has, -1)
	}
}

// countOne adds delta to the availability of piece i, which s has or had. A supplier that sends runs is not counted: it is one
// of several for a web seed, which is not a peer and should start the pieces that no peer has. Neither is one that had every piece
// and lost some: to count all others would take a pass over the pieces, for a message of a few bytes and again when it leaves.
func (pk *Picker) countOne(s *Supplier, i, delta int) {
	if !s.Runs && !s.near {
		pk.heap.countOne(i, delta)
	}
}

// suppliersPerStep is the number of suppliers that one step (see Picker.Work) checks for a piece.
const suppliersPerStep = 4

// counting yields the suppliers that count what they have, and have piece i.
func (pk *Picker) counting(i int) iter.Seq[*Supplier] {
	return func(yield func(*Supplier) bool) {
		pk.work += int64(len(pk.suppliers)) / suppliersPerStep
		for _, s := range pk.suppliers {
			if !s.all && s.has.Has(i) && !yield(s) {
				return
			}
		}
	}
}
