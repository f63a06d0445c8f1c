package torrent

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// The room for blocks of started pieces is dealt among the downloads of a client as its connections are.
func TestMemoryIsDealtFairly(t *testing.T) {
	const all = maxStartedMemory / blockSize
	var m blockMemory
	m.init()
	var greedy, second, third keeper
	take := func(k *keeper, most int) (n int) {
		for n < most && m.keep(k) {
			n++
		}
		return n
	}
	require.Equal(t, all, take(&greedy, 2*all), "one alone may have everything")
	m.release(&greedy, all)

	require.Equal(t, 1, take(&second, 1))
	require.Equal(t, all-all/reservedMemory-1, take(&greedy, all), "beside another, what that leaves but for a reserve")
	require.Equal(t, all/reservedMemory, take(&second, all), "which is for who has less than its share")
	require.Zero(t, take(&third, 1))

	m.release(&greedy, 10)
	require.Zero(t, take(&greedy, 1), "who has more than its share takes nothing of it back")
	require.Equal(t, 7, take(&third, 7))
	require.Equal(t, 3, take(&second, all))
	m.release(&second, int(second.kept/blockSize))
	m.release(&third, int(third.kept/blockSize))
	require.Equal(t, 10+1+all/reservedMemory, take(&greedy, all), "once it is alone, it may")
	m.release(&greedy, all)
	require.Zero(t, m.kept)
	require.Zero(t, m.keepers)
}

// A disk that is slow makes its own download wait, and no other.
func TestSlowDiskHoldsUpItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m blockMemory
		m.init()
		var slow, other keeper
		for m.keep(&slow) {
		}
		m.flush(&slow, 1)
		m.await(&other)
		waited := false
		go func() {
			m.await(&slow)
			waited = true
		}()
		synctest.Wait()
		require.False(t, waited)
		m.release(&slow, 1)
		synctest.Wait()
		require.True(t, waited, "there is room")
		require.True(t, m.keep(&slow))
		m.flush(&slow, -1)
		m.await(&slow)
	})
}
