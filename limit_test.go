package torrent

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"
)

// drained returns a limiter whose first burst is spent.
func drained(limit rate.Limit, burst int) *rate.Limiter {
	lim := rate.NewLimiter(limit, burst)
	lim.AllowN(time.Now(), burst)
	return lim
}

// wait returns when n bytes may be sent, or the error of ctx. It goes about it as the writer of a
// connection does.
func wait(ctx context.Context, l limits, n int) error {
	var r reservation
	var ok bool
	for tolerated := limitSlack; ; tolerated = limitSlack / 2 {
		pause := limitRecheck
		if !ok {
			r, ok = l.reserve(time.Now(), n)
		}
		if ok {
			delay := r.delay(time.Now())
			if delay <= tolerated {
				return ctx.Err()
			}
			pause = min(pause, delay-limitSlack/2)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// measured is how long a limit is measured: ten seconds or a hundred blocks, whichever is longer.
func measured(limit rate.Limit) time.Duration {
	return max(10*time.Second, time.Duration(100*blockSize/float64(limit)*float64(time.Second)))
}

// eachLimit runs a test in a bubble for every limit, size of bucket, and number of users.
func eachLimit(t *testing.T, test func(t *testing.T, limit rate.Limit, burst, users int)) {
	for _, limit := range []rate.Limit{16 << 10, 1 << 20, 10e6, 100e6} {
		for _, burst := range []int{1 << 10, 16 << 10, 1 << 20} {
			for _, users := range []int{1, 5, 40} {
				t.Run(fmt.Sprintf("limit=%.0f/burst=%d/users=%d", float64(limit), burst, users), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) { test(t, limit, burst, users) })
				})
			}
		}
	}
}

func TestWaitKeepsToTheLimit(t *testing.T) {
	eachLimit(t, func(t *testing.T, limit rate.Limit, burst, users int) {
		l := limits{drained(limit, burst)}
		ctx, cancel := context.WithTimeout(t.Context(), measured(limit))
		defer cancel()
		var passed atomic.Int64
		var group sync.WaitGroup
		for user := range users {
			group.Go(func() {
				for i := 1; wait(ctx, l, blockSize) == nil; i++ {
					passed.Add(blockSize)
					if (i+user)%64 == 0 {
						time.Sleep(8 * time.Millisecond) // a busy machine
					}
				}
			})
		}
		group.Wait()
		require.InEpsilon(t, float64(limit), float64(passed.Load())/measured(limit).Seconds(), 0.05)
	})
}

func TestGateKeepsToTheLimit(t *testing.T) {
	eachLimit(t, func(t *testing.T, limit rate.Limit, burst, users int) {
		lim := drained(limit, burst)
		end := time.Now().Add(measured(limit))
		var passed atomic.Int64
		var group sync.WaitGroup
		for range users {
			group.Go(func() {
				g := newGate(limits{lim}, blockSize)
				for i := 1; ; i++ {
					n := g.admit(time.Now(), 7)
					passed.Add(int64(n) * blockSize)
					pause := g.again()
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

func TestLimits(t *testing.T) {
	a, b := rate.NewLimiter(1, 1), rate.NewLimiter(2, 2)
	require.Empty(t, newLimits(nil, nil))
	require.Equal(t, limits{a, b}, newLimits(a, b))
	require.Equal(t, limits{b}, newLimits(nil, b))
	require.Equal(t, limits{a}, newLimits(a, nil))
	require.Equal(t, limits{a}, newLimits(a, a), "the same limiter must not be paid twice")
}

func TestReserve(t *testing.T) {
	for _, tc := range []struct {
		name string
		lims limits
		n    int
		want time.Duration
		ok   bool
	}{
		{"without limits all passes", nil, 1 << 30, 0, true},
		{"an infinite limit is none", limits{rate.NewLimiter(rate.Inf, 0)}, 1 << 30, 0, true},
		{"a full bucket pays at once", limits{rate.NewLimiter(1000, 500)}, 500, 0, true},
		{"what it lacks is waited for", limits{rate.NewLimiter(1000, 500)}, 1500, time.Second, true},
		{"a bucket of one token will do", limits{rate.NewLimiter(1000, 1)}, 2001, 2 * time.Second, true},
		{"the strictest of several decides", limits{rate.NewLimiter(1000, 10), rate.NewLimiter(100, 10)}, 1010, 10 * time.Second, true},
		{"a limit of nothing lets nothing pass", limits{rate.NewLimiter(0, 500)}, 1, 0, false},
		{"a bucket of nothing neither", limits{rate.NewLimiter(1000, 0)}, 1, 0, false},
		{"a limit too slow to tell is waited for all the same", limits{rate.NewLimiter(1e-12, 1)}, 1 << 20, time.Hour, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, ok := tc.lims.reserve(epoch, tc.n)
			require.Equal(t, tc.ok, ok)
			require.InDelta(t, tc.want, r.delay(epoch), float64(time.Millisecond))
		})
	}

	t.Run("nothing is taken where one lets nothing pass", func(t *testing.T) {
		open, shut := rate.NewLimiter(1, 10), rate.NewLimiter(0, 10)
		_, ok := newLimits(open, shut).reserve(epoch, 10)
		require.False(t, ok)
		require.InDelta(t, 10, open.TokensAt(epoch), 1e-6)
	})
}

// A change of a limit reaches those who wait already, each within limitRecheck.
func TestReservationGivenBack(t *testing.T) {
	lim, other := rate.NewLimiter(1000, 500), rate.NewLimiter(rate.Inf, 0)
	l := newLimits(lim, other)
	first, _ := l.reserve(epoch, 1500)
	second, _ := l.reserve(epoch, 1000)
	require.InDelta(t, 2*time.Second, second.delay(epoch), float64(time.Millisecond))
	first.giveBack(epoch, 1500)
	require.InDelta(t, 500*time.Millisecond, second.delay(epoch), float64(time.Millisecond), "it moves up")
	second.giveBack(epoch, 1000)
	second.giveBack(epoch, -1)
	require.InDelta(t, 500, lim.TokensAt(epoch), 1e-6)
	first.giveBack(epoch, 100)
	require.InDelta(t, 500, lim.TokensAt(epoch.Add(time.Hour)), 1e-6, "the bucket holds no more than before")
}

func TestWaitFollowsTheLimit(t *testing.T) {
	for _, tc := range []struct {
		name     string
		from, to rate.Limit
		burst    int
		want     time.Duration // until n bytes have passed, counted from the change after one second
	}{
		{"raised", 1000, 1e6, 1000, 400 * time.Millisecond},
		{"lifted", 1000, rate.Inf, 1000, 0},
		{"opened", 0, 1e6, 1000, 400 * time.Millisecond},
		{"lowered", 1e5, 1e4, 1000, 29 * time.Second}, // 390 kB at first, 290 kB left
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const n = 390_000
				lim := drained(tc.from, tc.burst)
				start := time.Now()
				time.AfterFunc(time.Second, func() { lim.SetLimit(tc.to) })
				require.NoError(t, wait(t.Context(), limits{lim}, n))
				require.InDelta(t, time.Second+tc.want, time.Since(start), float64(limitRecheck+100*time.Millisecond))
			})
		})
	}

	t.Run("a bucket gets room", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			lim := rate.NewLimiter(1000, 0)
			time.AfterFunc(time.Second, func() { lim.SetBurst(10) })
			start := time.Now()
			require.NoError(t, wait(t.Context(), limits{lim}, 1000))
			require.InDelta(t, 2*time.Second, time.Since(start), float64(limitRecheck))
		})
	})

	t.Run("forty wait in line", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := limits{drained(1000, 1000)}
			start := time.Now()
			var group sync.WaitGroup
			for range 40 {
				group.Go(func() { require.NoError(t, wait(t.Context(), l, blockSize)) })
			}
			time.Sleep(time.Second)
			l[0].SetLimit(1e6)
			group.Wait()
			require.Less(t, time.Since(start), 2500*time.Millisecond, "640 KiB at 1 MB/s, and the time to notice")
		})
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	for name, l := range map[string]limits{
		"a low limit":       limits{rate.NewLimiter(1, 1)},
		"a limit of zero":   limits{rate.NewLimiter(0, 0)},
		"no limit":          nil,
		"a limit far above": limits{rate.NewLimiter(1e9, 1e9)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				start := time.Now()
				time.AfterFunc(100*time.Millisecond, cancel)
				for wait(ctx, l, blockSize) == nil {
					time.Sleep(time.Millisecond)
				}
				require.ErrorIs(t, ctx.Err(), context.Canceled)
				require.Less(t, time.Since(start), 110*time.Millisecond)
			})
		})
	}
}

func TestGate(t *testing.T) {
	t.Run("without limits admits all", func(t *testing.T) {
		g := newGate(nil, blockSize)
		require.Equal(t, 1000, g.admit(epoch, 1000))
		require.Zero(t, g.again())
		g.giveBack(10)
		require.Equal(t, 3, g.admit(epoch, 3))
	})

	t.Run("one block a second", func(t *testing.T) {
		g := newGate(limits{rate.NewLimiter(blockSize, 1)}, blockSize)
		now := epoch
		require.Equal(t, 0, g.admit(now, 5), "the bucket holds a byte, not a block")
		require.Equal(t, limitRecheck, g.again(), "soon enough to notice a new limit")
		now = now.Add(800 * time.Millisecond)
		require.Equal(t, 0, g.admit(now, 5))
		require.InDelta(t, 190*time.Millisecond, g.again(), float64(time.Millisecond), "a little ahead of time, so that a late timer costs nothing")
		now = now.Add(g.again())
		require.Equal(t, 1, g.admit(now, 5), "the block waited for")
		require.Equal(t, limitRecheck, g.again())
	})

	t.Run("what came to nothing is free next time", func(t *testing.T) {
		g := newGate(limits{rate.NewLimiter(1, 4*blockSize)}, blockSize)
		require.Equal(t, 4, g.admit(epoch, 10), "the first burst")
		g.giveBack(3)
		require.Equal(t, 2, g.admit(epoch, 2))
		require.Zero(t, g.again())
		require.Equal(t, 1, g.admit(epoch, 2), "the third")
		require.NotZero(t, g.again())
		g.giveBack(1 << 20)
		require.Equal(t, maxUnused, g.admit(epoch, 1<<20), "but no burst without bound")
	})

	t.Run("who leaves gives back what it did not use", func(t *testing.T) {
		lim := rate.NewLimiter(1, 4*blockSize)
		g := newGate(limits{lim}, blockSize)
		require.Equal(t, 4, g.admit(epoch, 10))
		require.InDelta(t, -blockSize, lim.TokensAt(epoch), 1e-6, "the next has its place in the queue")
		g.giveBack(3)
		g.leave(epoch)
		require.InDelta(t, 3*blockSize, lim.TokensAt(epoch), 1e-6)
		g.leave(epoch)
		require.InDelta(t, 3*blockSize, lim.TokensAt(epoch), 1e-6, "once")
	})

	t.Run("a limit of nothing", func(t *testing.T) {
		lim := rate.NewLimiter(0, blockSize)
		g := newGate(limits{lim}, blockSize)
		require.Equal(t, 0, g.admit(epoch, 5))
		require.Equal(t, limitRecheck, g.again())
		lim.SetLimitAt(epoch, 10*blockSize)
		require.Equal(t, 1, g.admit(epoch, 5))
	})

	t.Run("a limit raised while a block is waiting", func(t *testing.T) {
		lim := rate.NewLimiter(1, 1)
		g := newGate(limits{lim}, blockSize)
		require.Equal(t, 0, g.admit(epoch, 5))
		lim.SetLimitAt(epoch, 100e6)
		require.Equal(t, 5, g.admit(epoch.Add(limitRecheck), 5))
	})
}

func BenchmarkReserve(b *testing.B) {
	l := newLimits(rate.NewLimiter(1e12, 1<<20), rate.NewLimiter(1e12, 1<<20))
	b.ReportAllocs()
	for b.Loop() {
		now := time.Now()
		r, _ := l.reserve(now, blockSize)
		r.delay(now)
	}
}

func BenchmarkGate(b *testing.B) {
	g := newGate(newLimits(rate.NewLimiter(1e12, 1<<20), rate.NewLimiter(1e12, 1<<20)), blockSize)
	b.ReportAllocs()
	for b.Loop() {
		g.admit(time.Now(), 1)
	}
}
