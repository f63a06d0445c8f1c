package bits_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
)

func TestSetMatchesAPlainModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 7, 8, 9, 63, 64, 65, 127, 128, 200} {
		b, other := bits.New(n), bits.New(n)
		plain, plainOther := make([]bool, n), make([]bool, n)
		for range 4 * n {
			i := rng.IntN(n)
			switch rng.IntN(4) {
			case 0, 1:
				require.Equal(t, !plain[i], b.Add(i))
				plain[i] = true
			case 2:
				require.Equal(t, plain[i], b.Remove(i))
				plain[i] = false
			default:
				other.Add(i)
				plainOther[i] = true
			}
			var want []int
			var union []int
			both := 0
			for i, set := range plain {
				require.Equal(t, set, b.Has(i))
				if set {
					want = append(want, i)
				}
				if set || plainOther[i] {
					union = append(union, i)
				}
				if set && plainOther[i] {
					both++
				}
			}
			require.Equal(t, want, slices.Collect(b.All()))
			require.Equal(t, len(want), b.Count())
			require.Equal(t, len(want) == n, b.Full())
			require.Equal(t, both, b.CountAnd(&other))
			sum := b.Clone()
			sum.AddAll(&other)
			require.Equal(t, union, slices.Collect(sum.All()))
			require.Equal(t, len(union), sum.Count())
		}
		require.Equal(t, n, b.Len())
		require.False(t, b.Has(-1))
		require.False(t, b.Has(n))

		p := b.AppendTo([]byte{1, 2})
		require.Equal(t, []byte{1, 2}, p[:2])
		again, err := bits.Parse(p[2:], n)
		require.NoError(t, err)
		require.Equal(t, b, again)
	}
}

func TestAllAndBeginsAnywhere(t *testing.T) {
	b, c := bits.New(200), bits.New(200)
	for i := range 200 {
		if i%2 == 0 {
			b.Add(i)
		}
		if i%31 == 0 {
			c.Add(i)
		}
	}
	for start, want := range map[int][]int{
		0:   {0, 62, 124, 186},
		63:  {0, 62, 124, 186},
		64:  {124, 186, 0, 62},
		127: {124, 186, 0, 62},
		130: {186, 0, 62, 124},
		199: {0, 62, 124, 186},
	} {
		require.Equal(t, want, slices.Collect(b.AllAnd(&c, start)), start)
	}
	none := bits.New(0)
	require.Empty(t, slices.Collect(none.AllAnd(&none, 0)))
}

func TestFullHasEveryIndexAndNoOther(t *testing.T) {
	for n := range 200 {
		b := bits.Full(n)
		require.True(t, b.Full())
		require.Equal(t, n, b.Count())
		require.Len(t, slices.Collect(b.All()), n)
		again, err := bits.Parse(b.AppendTo(nil), n)
		require.NoError(t, err, "no spare bit is set")
		require.Equal(t, b, again)
	}
}

func TestCloneSharesNothing(t *testing.T) {
	b := bits.New(70)
	b.Add(3)
	c := b.Clone()
	require.Equal(t, b, c)
	c.Add(69)
	b.Remove(3)
	require.Empty(t, slices.Collect(b.All()))
	require.Equal(t, []int{3, 69}, slices.Collect(c.All()))
}

func TestAllStopsEarly(t *testing.T) {
	b := bits.Full(130)
	for i := range b.All() {
		if i == 65 {
			return
		}
	}
	t.Fatal("not reached")
}

func TestWireForm(t *testing.T) {
	for name, c := range map[string]struct {
		n    int
		p    []byte
		want []int
		err  string
	}{
		"the high bit of the first byte is piece 0": {n: 10, p: []byte{0x81, 0x40}, want: []int{0, 7, 9}},
		"more than one word":                        {n: 72, p: []byte{0, 0, 0, 0, 0, 0, 0, 1, 0x80}, want: []int{63, 64}},
		"none":                                      {n: 0, p: nil},
		"too short":                                 {n: 9, p: []byte{0}, err: "bitfield of 1 bytes for 9 pieces, want 2"},
		"too long":                                  {n: 8, p: []byte{0, 0}, err: "bitfield of 2 bytes for 8 pieces, want 1"},
		"a spare bit":                               {n: 9, p: []byte{0, 0x40}, err: "bitfield with spare bits set"},
		"the last spare bit":                        {n: 65, p: []byte{0, 0, 0, 0, 0, 0, 0, 0, 1}, err: "bitfield with spare bits set"},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := bits.Parse(c.p, c.n)
			if c.err != "" {
				require.EqualError(t, err, c.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, slices.Collect(b.All()))
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{0x81, 0x40}, 10)
	f.Add([]byte{0xff}, 7)
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1, 0x80}, 72)
	f.Fuzz(func(t *testing.T, p []byte, n int) {
		if n < 0 || n > 1<<16 {
			t.Skip("a torrent says how many pieces there are")
		}
		b, err := bits.Parse(p, n)
		if err != nil {
			return
		}
		require.Equal(t, n, b.Len())
		require.Len(t, slices.Collect(b.All()), b.Count())
		require.Equal(t, string(p), string(b.AppendTo(nil)))
	})
}

func TestNext(t *testing.T) {
	for _, n := range []int{0, 1, 63, 64, 65, 200} {
		b := bits.New(n)
		require.Equal(t, n, b.Next(0))
		for _, i := range []int{0, 5, 62, 63, 64, 127, 128, 199} {
			if i < n {
				b.Add(i)
			}
		}
		for i := range n + 3 {
			want := min(i, n)
			for want < n && !b.Has(want) {
				want++
			}
			require.Equal(t, min(want, n), b.Next(i), "%d of %d", i, n)
		}
	}
}
