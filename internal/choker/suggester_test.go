package choker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSuggestAgain(t *testing.T) {
	var s Suggester
	var sp Spread
	avail := make([]uint16, 10)
	picks := func(now time.Time) (all []int) {
		for {
			i := s.Pick(len(avail), func(i int) uint16 { return avail[i] }, &sp, 1<<20, now)
			if i < 0 {
				return all
			}
			all = append(all, i)
		}
	}
	for i := range 5 { // a free rider asks for one piece more than it may have for itself
		sp.Give(1, i, len(avail), avail[i])
		s.Give(i, len(avail))
		avail[i] = 1
	}
	require.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, picks(epoch), "what only a hoarder has is suggested to another")
	avail[9] = 1
	require.Empty(t, picks(epoch.Add(time.Second)))
	s.Give(5, len(avail))
	s.Give(6, len(avail))
	s.GiveUp([]int{6})
	require.Equal(t, []int{6, 7, 8}, picks(epoch.Add(2*time.Second)), "a peer that was choked will not get it")
	require.Equal(t, []int{5, 6, 7, 8}, picks(epoch.Add(3*suggestPause)), "nor did these come to any peer")
	require.Empty(t, picks(epoch.Add(3*suggestPause)))
}

// However many pieces there are, one call looks at some of them, and later ones at the rest.
func TestSuggestionsAreSoughtInSteps(t *testing.T) {
	const pieces, rare = 1_000_000, 700_000
	var s Suggester
	var sp Spread
	looks := 0
	avail := func(i int) uint16 {
		looks++
		if i == rare {
			return 0
		}
		return 1
	}
	calls := func() (n int) {
		for n = 1; s.Pick(pieces, avail, &sp, 1<<20, epoch) != rare; n++ {
			require.Less(t, n, 100)
		}
		return n
	}
	require.Equal(t, rare/maxLooks+1, calls())
	require.LessOrEqual(t, looks, rare+1)
	s.GiveUp([]int{rare})
	require.Equal(t, pieces/maxLooks+1, calls(), "a peer that is choked and unchoked does not have all looked at each time")

	looks = 0
	for range 2 * pieces / maxLooks {
		require.Equal(t, -1, s.Pick(pieces, avail, &sp, 1<<20, epoch))
	}
	require.Equal(t, pieces, looks, "once all are known to be of no use, none is looked at for a while")
}
