package picker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/layout"
)

func TestRarestFirst(t *testing.T) {
	sc := newScene(t, 3)
	sc.join("s")
	sc.join("a", 0, 1)
	sc.join("b", 1, 2)
	sc.join("c", 1, 2)
	require.Equal(t, "0.0 0.1", sc.asks("a", 2), "only a has piece 0, besides the seed, which does not count")
	require.Equal(t, "2.0 2.1", sc.asks("b", 2), "b lacks 0; 2 is rarer than 1")
	require.Equal(t, "0.2 0.3 2.2 2.3", sc.asks("s", 4), "started pieces come before new ones, the oldest first")
	sc.s.Leave(sc.peers["c"])
	require.Equal(t, "1.0", sc.asks("s", 1))
}

func TestPriority(t *testing.T) {
	sc := newScene(t, 3)
	sc.join("s")
	first := sc.s.heap.top()
	other := (first + 1) % 3
	require.Equal(t, fmt.Sprintf("%d.0", first), sc.asks("s", 1))
	sc.s.Prioritise(other, high)
	require.Equal(t, fmt.Sprintf("%d.0 %d.1 %d.2 %d.3 %d.1", other, other, other, other, first), sc.asks("s", 5),
		"what is more wanted comes before what is begun")
	require.Equal(t, fmt.Sprintf("%d.0 %d.1", first, first), ids(blocksOf(sc.s.yield(sc.peers["s"], high, true))), "a piece of higher priority may take its place")

	cancel := sc.s.Prioritise(other, skip)
	require.Len(t, cancel, 4, "requests for an unwanted piece are cancelled")
	require.False(t, sc.s.need.Has(other))
	sc.sends("s", int32(other), 0, Wasted)
	sc.s.Prioritise(first, skip)
	sc.s.Prioritise(3-first-other, skip)
	require.Empty(t, sc.asks("s", 1))
	require.False(t, sc.s.Interesting(sc.peers["s"]), "nothing that s has is wanted")
}

func TestInterest(t *testing.T) {
	sc := newScene(t, 2)
	a := sc.join("a", 0)
	require.True(t, sc.s.Interesting(a))
	sc.s.Passed(0, nil)
	require.False(t, sc.s.Interesting(a), "we have all its pieces")
	require.True(t, sc.s.Have(a, 1))
	require.False(t, sc.s.Have(a, 1), "not new")
	require.True(t, sc.s.Interesting(a))
	sc.s.lose(a, 1)
	require.False(t, sc.s.Interesting(a))
}

func TestFastPieces(t *testing.T) {
	sc := newScene(t, 4)
	a := sc.join("a", 1, 3)
	sc.join("b", 0, 1, 2)
	a.Choking = true
	a.allowed = map[int32]struct{}{2: {}, 3: {}}
	require.Equal(t, "3.0 3.1 3.2 3.3", sc.asks("a", 9), "its allowed-fast pieces (BEP 6)")
	b := sc.peers["b"]
	top := sc.s.first(b)
	other := (top + 1) % 3
	b.Suggest(other)
	require.Equal(t, other, sc.s.first(b), "a suggestion overrules rarity")
	sc.s.Prioritise(top, high)
	require.Equal(t, top, sc.s.first(b), "but not priority")
	for i := range maxSuggested + 3 {
		b.Suggest(i)
	}
	require.Equal(t, []int32{3, 4, 5, 6, 7, 8, 9, 10}, b.suggested)
}

func TestSuggestedPieces(t *testing.T) {
	sc := newScene(t, 4)
	sc.join("a", 0, 1, 2, 3)
	b := sc.join("b", 0, 1, 2, 3)
	sc.asks("a", 1)
	started := int(sc.peers["a"].queue[0].Piece)
	b.Suggest((started + 1) % 4)
	blocks := func(piece int, from, to int) (ids []string) {
		for k := from; k < to; k++ {
			ids = append(ids, fmt.Sprintf("%d.%d", piece%4, k))
		}
		return ids
	}
	require.Equal(t, blocks(started+1, 0, 2), strings.Fields(sc.asks("b", 2)), "a suggested piece comes before started ones")
	require.Equal(t, slices.Concat(blocks(started+1, 2, 4), blocks(started, 1, 2)), strings.Fields(sc.asks("b", 3)), "to its end")
	b.Suggest((started + 2) % 4)
	sc.s.Prioritise(started, high)
	require.Equal(t, slices.Concat(blocks(started, 2, 4), blocks(started+2, 0, 1)), strings.Fields(sc.asks("b", 3)), "but not before pieces of higher priority")
}

func TestSnubbedPeerIsAskedForOne(t *testing.T) {
	sc := newScene(t, 3)
	a := sc.join("a")
	sc.asks("a", 2)
	a.snubbed = true
	require.Empty(t, sc.asks("a", 9))
	sc.s.Release(a, everything)
	require.Len(t, strings.Fields(sc.asks("a", 9)), 1, "one block, to see whether it is back")
	sc.sends("a", a.queue[0].Piece, a.queue[0].Index, Accepted)
	require.Len(t, strings.Fields(sc.asks("a", 5)), 5, "it is back")
}

// A supplier may suggest one piece again and again that it cannot be asked for, and have only the last of thousands of open pieces. To
// look for what it can be asked for costs little, however many requests wait for the piece's sole supplier, and is not repeated at once.
func TestSuggestionsOfOpenPiecesCostLittle(t *testing.T) {
	const pieces, rounds = 15_000, 20
	pk := opened(t, pieces, 2*layout.BlockSize)
	now, last := time.Unix(2, 0), pieces-1
	pk.Abandon(last)
	pk.spoiled[int32(last)] = &suspicion{records: make(map[any]record)}
	sole := only(pk, last)
	blocks, _ := pk.Next(sole, 1, now, nil)
	require.Equal(t, []Block{{int32(last), 0}}, blocks)
	sole.pace = pace{rate: 1 << 30}
	s := only(pk, last)
	s.pace = pace{rate: 1}
	for range 2 * maxSuggested {
		s.Suggest(last)
	}
	require.Equal(t, []int32{int32(last)}, s.suggested)
	for i := range maxSuggested - 1 {
		s.Suggest(i)
	}
	before := pk.Work()
	for range rounds {
		blocks, cancel := pk.Next(s, 10, now, nil)
		require.Empty(t, blocks)
		require.Empty(t, cancel)
		now = now.Add(10 * time.Millisecond)
	}
	steps := pk.Work() - before
	t.Logf("%d steps", steps)
	require.Less(t, steps, int64(3*pieces))
	pk.Have(s, 7)
	now = now.Add(time.Second)
	blocks, _ = pk.Next(s, 1, now, nil)
	require.Equal(t, []Block{{7, 1}}, blocks)
}
