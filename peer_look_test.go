package torrent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The files under a piece are looked at once a piece and a while, and what is remembered of that is bounded.
func TestLookOnceAPieceAndAWhile(t *testing.T) {
	var u uploading
	now := time.Unix(0, 0)
	require.True(t, u.lookDue(7, now))
	for range 1000 {
		require.False(t, u.lookDue(7, now.Add(lookAgain-1)))
	}
	require.True(t, u.lookDue(8, now))
	require.True(t, u.lookDue(7, now.Add(lookAgain)))
	for i := range uint32(100_000) {
		u.lookDue(i, now)
		now = now.Add(10 * time.Millisecond)
	}
	require.LessOrEqual(t, len(u.looked), 1024)
}
