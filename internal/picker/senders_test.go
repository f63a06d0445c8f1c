package picker

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// Of thousands of peers that came and went, those are remembered that sent blocks which may still prove false.
func TestSendersAreForgotten(t *testing.T) {
	const crowd = 3000
	sc := newScene(t, 2+crowd)
	come := func(from, to int) {
		for i := from; i < to; i++ {
			name := fmt.Sprint(i)
			p := sc.join(name, 2+i)
			sc.asks(name, 4)
			for k := range int32(4) {
				sc.sends(name, int32(2+i), k, Accepted)
			}
			sc.s.Passed(2+i, make([]uint64, 4))
			sc.s.Leave(p)
			delete(sc.peers, name)
		}
	}
	come(0, 1000)
	for _, name := range []string{"a", "b"} {
		sc.join(name, 0)
	}
	sc.fetch("aaab")
	sc.failed() // all of it is dropped
	c := sc.join("c", 1)
	sc.asks("c", 1)
	sc.sends("c", 1, 0, Accepted)
	d := sc.join("d", 0)
	for _, gone := range []string{"a", "b", "c"} {
		sc.s.Leave(sc.peers[gone])
	}
	come(1000, crowd)
	require.Less(t, len(sc.s.senders.all), 500)

	liar := func(origin any) bool { return origin == "c" }
	require.Equal(t, "1.0", ids(sc.s.Disown(liar)), "the block of a peer that left long ago")
	require.Negative(t, c.sender, "what it sends late would be its own")
	sc.fetch("dddd")
	require.Equal(t, "b", sc.passed([]uint64{0, 0, 0, 99}), "and who spoiled a piece")
	require.GreaterOrEqual(t, d.sender, int32(0))
}
