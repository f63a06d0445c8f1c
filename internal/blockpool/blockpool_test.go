package blockpool

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

const blockSize = 16 << 10

// The limit is dealt among the downloads of a client as its connections are.
func TestLimitIsDealtFairly(t *testing.T) {
	const all = Limit / blockSize
	p := New(blockSize, 0)
	greedy, second, third := p.NewShare(), p.NewShare(), p.NewShare()
	take := func(s *Share, most int) (n int) {
		for n < most && s.Hold() {
			n++
		}
		return n
	}
	require.Equal(t, all, take(greedy, 2*all), "one alone may have everything")
	greedy.Release(all)

	require.Equal(t, 1, take(second, 1))
	require.Equal(t, all-all/reserved-1, take(greedy, all), "beside another, all that the other leaves but for a reserve")
	require.Equal(t, all/reserved, take(second, all), "which is for those below their share")
	require.Zero(t, take(third, 1))

	greedy.Release(10)
	require.Zero(t, take(greedy, 1), "a download above its share takes nothing of it back")
	require.Equal(t, 7, take(third, 7))
	require.Equal(t, 3, take(second, all))
	second.Release(int(second.held / blockSize))
	third.Release(int(third.held / blockSize))
	require.Equal(t, 10+1+all/reserved, take(greedy, all), "once it is alone, it may")
	greedy.Release(all)
	require.Zero(t, p.held)
	require.Zero(t, p.holders)
}

// A disk that is slow makes its own download wait, and no other.
func TestSlowDiskHoldsUpItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(blockSize, 0)
		slow, other := p.NewShare(), p.NewShare()
		for slow.Hold() {
		}
		slow.BeginFlush()
		other.Await(t.Context())
		waited := false
		go func() {
			slow.Await(t.Context())
			waited = true
		}()
		synctest.Wait()
		require.False(t, waited)
		slow.Release(1)
		synctest.Wait()
		require.True(t, waited, "there is room")
		require.True(t, slow.Hold())
		slow.EndFlush()
		slow.Await(t.Context())
	})
}

func TestBuffersAreLentAgain(t *testing.T) {
	p := New(blockSize, 0)
	b := p.Get()
	require.Len(t, b, blockSize)
	p.Put(b[:10])
	again := p.Get()
	require.Len(t, again, blockSize)
	require.Same(t, &b[0], &again[0])

	s := p.NewShare()
	require.True(t, s.Hold())
	held, limit := p.Held()
	require.EqualValues(t, blockSize, held)
	require.EqualValues(t, Limit, limit)
	s.Drop(again)
	held, _ = p.Held()
	require.Zero(t, held)
	require.Len(t, p.free, 1)
}

// Spare buffers go back to the system little by little, and never those that were needed recently.
func TestTrim(t *testing.T) {
	p := New(blockSize, 0)
	var lent [][]byte
	for range 2 * trimmed {
		lent = append(lent, p.Get())
	}
	for _, b := range lent {
		p.Put(b)
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p.Trim(now)
	require.Len(t, p.free, 2*trimmed, "all were lent since the last time")
	p.Trim(now.Add(time.Second / 2))
	p.Trim(now.Add(time.Second))
	require.Len(t, p.free, 2*trimmed-2, "a part of the spare ones, at most once a second")
	for range 2*trimmed - 2 {
		p.Get()
	}
	for _, b := range lent[2:] {
		p.Put(b)
	}
	p.Trim(now.Add(2 * time.Second))
	require.Len(t, p.free, 2*trimmed-2)
	for s := range 1000 {
		p.Trim(now.Add(time.Duration(3+s) * time.Second))
	}
	require.Empty(t, p.free)
}
