package picker

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
)

// benchPicker returns a Picker whose pieces are all wanted, and suppliers that each have a random share of the pieces.
func benchPicker(pieces, suppliers int, share float64) (*Picker, []*Supplier) {
	rng := rand.New(rand.NewPCG(1, 2))
	l := layout.New(256<<10, layout.File{Length: int64(pieces) * 256 << 10})
	s := New(l, 7)
	for i := range pieces {
		s.Prioritise(i, normal)
	}
	var all []*Supplier
	for k := range suppliers {
		r := &Supplier{Origin: k, Host: k, has: bits.New(pieces), pace: pace{rate: 1e6}}
		for i := range pieces {
			if rng.Float64() < share {
				r.has.Add(i)
			}
		}
		s.join(r)
		all = append(all, r)
	}
	return s, all
}

// BenchmarkNext measures the scheduling of one block: it is requested and received, its piece is verified and, so that there is
// always more to do, lost again some pieces later.
func BenchmarkNext(b *testing.B) {
	for _, share := range []float64{1, 0.5, 0.01} {
		for _, suppliers := range []int{1, 50, 500} {
			for _, pieces := range []int{1e3, 1e4, 1e5, 1e6} {
				if pieces*suppliers > 5e7 {
					continue
				}
				b.Run(fmt.Sprintf("share=%v/peers=%d/pieces=%d", share, suppliers, pieces), func(b *testing.B) {
					s, all := benchPicker(pieces, suppliers, share)
					now := time.Unix(1, 0)
					var ids []Block
					b.ReportAllocs()
					some := 0 // pieces that any supplier has
					for i := range pieces {
						if slices.ContainsFunc(all, func(r *Supplier) bool { return r.Has(i) }) {
							some++
						}
					}
					var done []int
					n := 0
					for b.Loop() {
						r := all[n%len(all)]
						n++
						ids, _ = s.Next(r, 16, now, ids[:0])
						for _, id := range ids {
							s.Received(r, id, now)
							if p := s.started[id.Piece]; p != nil && p.left == 0 {
								s.Passed(int(id.Piece), nil)
								done = append(done, int(id.Piece))
							}
						}
						if len(done) > some/4 {
							s.Doubt(done[0])
							s.Lost(done[0])
							done = done[1:]
						}
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/16, "ns/block")
				})
			}
		}
	}
}

// BenchmarkNextOfUrgent measures the same for a peer that has neither the started pieces, of which there are many, nor the piece
// with the highest priority.
func BenchmarkNextOfUrgent(b *testing.B) {
	for _, started := range []int{1, 100} {
		for _, pieces := range []int{1e5, 1e6} {
			b.Run(fmt.Sprintf("started=%d/pieces=%d", started, pieces), func(b *testing.B) {
				s, all := benchPicker(pieces, 50, 0.01)
				now := time.Unix(1, 0)
				r, urgent := all[0], false
				for i := 0; len(s.open) < started; i++ {
					if !s.heap.holds(i) || s.heap.avail[i] == 0 || r.has.Has(i) {
						continue
					}
					if !urgent {
						s.Prioritise(i, normal+1)
						urgent = true
						continue
					}
					s.start(i)
				}
				var ids []Block
				for b.Loop() {
					ids, _ = s.Next(r, 1, now, ids[:0])
					s.Release(r, func(Block) bool { return true })
				}
			})
		}
	}
}

func BenchmarkHave(b *testing.B) {
	for _, pieces := range []int{1e3, 1e6} {
		b.Run(fmt.Sprintf("pieces=%d", pieces), func(b *testing.B) {
			s, all := benchPicker(pieces, 20, 0.5)
			r := &Supplier{has: bits.New(pieces)}
			s.join(r)
			_ = all
			n := 0
			for b.Loop() {
				if i := n * 7919 % pieces; !s.Have(r, i) {
					s.lose(r, i)
				}
				n++
			}
		})
	}
}

func BenchmarkJoin(b *testing.B) {
	for _, pieces := range []int{1e3, 1e6} {
		for _, share := range []float64{0.01, 0.5, 1} {
			b.Run(fmt.Sprintf("pieces=%d/share=%v", pieces, share), func(b *testing.B) {
				s, _ := benchPicker(pieces, 5, 0.5)
				_, some := benchPicker(pieces, 1, share)
				r := some[0]
				for b.Loop() {
					s.join(r)
					s.Leave(r)
				}
			})
		}
	}
}
