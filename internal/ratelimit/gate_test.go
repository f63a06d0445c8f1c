package ratelimit_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent/internal/ratelimit"
)

func TestGateKeepsToTheLimit(t *testing.T) {
	eachLimit(t, func(t *testing.T, limit rate.Limit, burst, users int) {
		lim := drained(limit, burst)
		end := time.Now().Add(measured(limit))
		var passed atomic.Int64
		var group sync.WaitGroup
		for range users {
			group.Go(func() {
				g := ratelimit.NewGate(ratelimit.Limits{lim}, blockSize)
				for i := 1; ; i++ {
					n := g.Admit(time.Now(), 7)
					passed.Add(int64(n) * blockSize)
					pause := g.Pause()
					require.Equal(t, n < 7, pause > 0)
					if i%16 == 0 {
						pause += 8 * time.Millisecond // a busy machine
					}
					if pause > time.Until(end) {
						return
					}
					time.Sleep(pause)
				}
			})
		}
		group.Wait()
		require.InEpsilon(t, float64(limit), float64(passed.Load())/measured(limit).Seconds(), 0.05)
	})
}

func TestGate(t *testing.T) {
	t.Run("without limits admits all", func(t *testing.T) {
		g := ratelimit.NewGate(nil, blockSize)
		require.Equal(t, 1000, g.Admit(epoch, 1000))
		require.Zero(t, g.Pause())
		g.Refund(10)
		require.Equal(t, 3, g.Admit(epoch, 3))
	})

	t.Run("one block a second", func(t *testing.T) {
		g := ratelimit.NewGate(ratelimit.Limits{rate.NewLimiter(blockSize, 1)}, blockSize)
		now := epoch
		require.Equal(t, 0, g.Admit(now, 5), "the bucket holds a byte, not a block")
		require.Equal(t, ratelimit.Recheck, g.Pause(), "soon enough to notice a new limit")
		now = now.Add(800 * time.Millisecond)
		require.Equal(t, 0, g.Admit(now, 5))
		require.InDelta(t, 190*time.Millisecond, g.Pause(), float64(time.Millisecond), "a little ahead of time, so that a late timer costs nothing")
		now = now.Add(g.Pause())
		require.Equal(t, 1, g.Admit(now, 5), "the block waited for")
		require.Equal(t, ratelimit.Recheck, g.Pause())
	})

	t.Run("refunded requests are free next time", func(t *testing.T) {
		g := ratelimit.NewGate(ratelimit.Limits{rate.NewLimiter(1, 4*blockSize)}, blockSize)
		require.Equal(t, 4, g.Admit(epoch, 10), "the first burst")
		g.Refund(3)
		require.Equal(t, 2, g.Admit(epoch, 2))
		require.Zero(t, g.Pause())
		require.Equal(t, 1, g.Admit(epoch, 2), "the third")
		require.NotZero(t, g.Pause())
		g.Refund(1 << 20)
		require.Equal(t, ratelimit.MaxUnused, g.Admit(epoch, 1<<20), "but no burst without bound")
	})

	t.Run("a gate that is released refunds what it did not use", func(t *testing.T) {
		lim := rate.NewLimiter(1, 4*blockSize)
		g := ratelimit.NewGate(ratelimit.Limits{lim}, blockSize)
		require.Equal(t, 4, g.Admit(epoch, 10))
		require.InDelta(t, -blockSize, lim.TokensAt(epoch), 1e-6, "the next has its place in the queue")
		g.Refund(3)
		g.Release(epoch)
		require.InDelta(t, 3*blockSize, lim.TokensAt(epoch), 1e-6)
		g.Release(epoch)
		require.InDelta(t, 3*blockSize, lim.TokensAt(epoch), 1e-6, "once")
	})

	t.Run("a limit of nothing", func(t *testing.T) {
		lim := rate.NewLimiter(0, blockSize)
		g := ratelimit.NewGate(ratelimit.Limits{lim}, blockSize)
		require.Equal(t, 0, g.Admit(epoch, 5))
		require.Equal(t, ratelimit.Recheck, g.Pause())
		lim.SetLimitAt(epoch, 10*blockSize)
		require.Equal(t, 1, g.Admit(epoch, 5))
	})

	t.Run("a limit raised while a block is waiting", func(t *testing.T) {
		lim := rate.NewLimiter(1, 1)
		g := ratelimit.NewGate(ratelimit.Limits{lim}, blockSize)
		require.Equal(t, 0, g.Admit(epoch, 5))
		lim.SetLimitAt(epoch, 100e6)
		require.Equal(t, 5, g.Admit(epoch.Add(ratelimit.Recheck), 5))
	})
}

func BenchmarkGate(b *testing.B) {
	g := ratelimit.NewGate(ratelimit.Join(rate.NewLimiter(1e12, 1<<20), rate.NewLimiter(1e12, 1<<20)), blockSize)
	b.ReportAllocs()
	for b.Loop() {
		g.Admit(time.Now(), 1)
	}
}
