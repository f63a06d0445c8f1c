package torrent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTurnover(t *testing.T) {
	for _, tc := range []struct{ connected, most, want int }{
		{0, 80, 0}, {71, 80, 0}, {72, 80, 2}, {80, 80, 3}, {500, 500, 20}, {9, 10, 1}, {1, 1, 1},
	} {
		require.Equal(t, tc.want, turnover(tc.connected, tc.most), "%d of %d", tc.connected, tc.most)
	}
}

func TestWorst(t *testing.T) {
	old, now := epoch, epoch.Add(time.Hour)
	peers := []peerWorth{
		{id: 1, joined: old, mutual: true, rate: 100, priority: 1},
		{id: 2, joined: old, mutual: true, rate: 0, priority: 9},
		{id: 3, joined: old, mutual: true, rate: 0, priority: 8},
		{id: 4, joined: old, mutual: false, rate: 0, priority: 99},
		{id: 5, joined: old, keep: true},
		{id: 6, joined: now.Add(-turnoverGrace / 2)},
	}
	require.Empty(t, worst(now, peers, 0))
	require.Equal(t, []int{4}, worst(now, peers, 1), "neither wants anything")
	require.Equal(t, []int{4, 3, 2}, worst(now, peers, 3), "then who is slow, and of those the one of lower priority")
	require.Equal(t, []int{4, 3, 2, 1}, worst(now, peers, 10), "never the user's own, nor one that just came")
	require.Equal(t, 1, peers[0].id, "what was given is left as it is")
}
