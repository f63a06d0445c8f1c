package ratelimit_test

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

	"github.com/shoal-go/torrent/internal/ratelimit"
)

const blockSize = 16 << 10

// drained returns a limiter whose first burst is spent.
func drained(limit rate.Limit, burst int) *rate.Limiter {
	lim := rate.NewLimiter(limit, burst)
	lim.AllowN(time.Now(), burst)
	return lim
}

// wait returns when n bytes may be sent, or the error of ctx. It does so as the writer of a connection
// does.
func wait(ctx context.Context, l ratelimit.Limits, n int) error {
	turn := ratelimit.NewTurn(l)
	defer func() { turn.Leave(time.Now()) }()
	for {
		delay := turn.Delay(time.Now(), n)
		if delay == 0 {
			turn.Sent(time.Now(), n)
			return ctx.Err()
		}
		select {
		case <-time.After(delay):
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
		l := ratelimit.Limits{drained(limit, burst)}
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

// A change of a limit reaches those that are waiting, each within recheck.
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
				require.NoError(t, wait(t.Context(), ratelimit.Limits{lim}, n))
				require.InDelta(t, time.Second+tc.want, time.Since(start), float64(ratelimit.Recheck+100*time.Millisecond))
			})
		})
	}

	t.Run("a bucket without room", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			lim := rate.NewLimiter(1000, 0)
			start := time.Now()
			require.NoError(t, wait(t.Context(), ratelimit.Limits{lim}, 1000))
			require.InDelta(t, time.Second, time.Since(start), float64(ratelimit.Recheck))
		})
	})

	t.Run("forty wait in line", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := ratelimit.Limits{drained(1000, 1000)}
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
	for name, l := range map[string]ratelimit.Limits{
		"a low limit":       ratelimit.Limits{rate.NewLimiter(1, 1)},
		"a limit of zero":   ratelimit.Limits{rate.NewLimiter(0, 0)},
		"no limit":          nil,
		"a limit far above": ratelimit.Limits{rate.NewLimiter(1e9, 1e9)},
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

func TestTurn(t *testing.T) {
	lim := rate.NewLimiter(1000, 1000)
	turn := ratelimit.NewTurn(ratelimit.Join(lim, nil))
	require.Zero(t, turn.Delay(epoch, 800))
	turn.Sent(epoch, 500)
	require.InDelta(t, 500, lim.TokensAt(epoch), 1e-6, "bytes that were not sent are refunded")
	require.Equal(t, ratelimit.Recheck, turn.Delay(epoch, 1500))
	require.Equal(t, ratelimit.Recheck, turn.Delay(epoch, 1500), "bytes are reserved once")
	require.InDelta(t, -1000, lim.TokensAt(epoch), 1e-6)
	require.InDelta(t, 90*time.Millisecond, turn.Delay(epoch, 600), float64(time.Millisecond), "for other bytes there is another place")
	turn.Leave(epoch)
	require.InDelta(t, 500, lim.TokensAt(epoch), 1e-6)
	turn.Leave(epoch)
	require.InDelta(t, 500, lim.TokensAt(epoch), 1e-6, "once")
}
