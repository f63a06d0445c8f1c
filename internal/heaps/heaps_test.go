package heaps_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/heaps"
)

type element struct{ value, place int }

// A heap agrees with a sorted list, and its elements know where they are.
func TestHeapAgreesWithModel(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		h := heaps.New(func(a, b *element) bool { return a.value < b.value }, func(e *element, at int) { e.place = at })
		var model []*element
		for range 200 {
			k := rng.IntN(7)
			switch {
			case k < 3 || len(model) == 0:
				e := &element{value: rng.IntN(50)}
				model = append(model, e)
				h.Push(e)
			case k == 3:
				e := h.Pop()
				require.Equal(t, -1, e.place)
				model = slices.DeleteFunc(model, func(other *element) bool { return other == e })
				for _, other := range model {
					require.LessOrEqual(t, e.value, other.value)
				}
			case k == 4:
				i := rng.IntN(len(model))
				h.Remove(model[i].place)
				require.Equal(t, -1, model[i].place)
				model = slices.Delete(model, i, i+1)
			case k == 5:
				e := model[rng.IntN(len(model))]
				e.value = rng.IntN(50)
				h.Fix(e.place)
			default:
				for _, e := range model {
					e.value = rng.IntN(50)
				}
				h.FixAll()
			}
			all := slices.Collect(h.All())
			require.Equal(t, len(model), h.Len())
			require.ElementsMatch(t, model, all)
			for at, e := range all {
				require.Equal(t, at, e.place)
				require.LessOrEqual(t, h.First().value, e.value)
			}
		}
		h.Clear()
		require.Zero(t, h.Len())
		for _, e := range model {
			require.Equal(t, -1, e.place)
		}
	}
}

func TestHeapWithoutPlaces(t *testing.T) {
	h := heaps.New(func(a, b int) bool { return a < b }, nil)
	for _, n := range []int{3, 1, 2} {
		h.Push(n)
	}
	for want := 1; want <= 3; want++ {
		require.Equal(t, want, h.First())
		require.Equal(t, want, h.Pop())
	}
}
