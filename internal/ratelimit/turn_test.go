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

// wait returns when n bytes may be sent, or the error of ctx. It does so as the writer of a connection does.
func wait(ctx context.Context, q *ratelimit.Queue, n int) error {
	wake := make(chan struct{}, 1)
	turn := newTurn(wake, q)
	defer turn.Leave()
	for !turn.Ready(n) {
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	turn.Sent(n)
	return ctx.Err()
}

func newTurn(wake chan<- struct{}, queues ...*ratelimit.Queue) *ratelimit.Turn {
	return newTurnOf("", wake, queues...)
}

func newTurnOf(network string, wake chan<- struct{}, queues ...*ratelimit.Queue) *ratelimit.Turn {
	return ratelimit.NewTurn(network, func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}, queues...)
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
		q := ratelimit.NewQueue(drained(limit, burst))
		ctx, cancel := context.WithTimeout(t.Context(), measured(limit))
		defer cancel()
		var passed atomic.Int64
		var group sync.WaitGroup
		for user := range users {
			group.Go(func() {
				for i := 1; wait(ctx, q, blockSize) == nil; i++ {
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
				require.NoError(t, wait(t.Context(), ratelimit.NewQueue(lim), n))
				require.InDelta(t, time.Second+tc.want, time.Since(start), float64(ratelimit.Recheck+100*time.Millisecond))
			})
		})
	}

	t.Run("a bucket without room", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			lim := rate.NewLimiter(1000, 0)
			start := time.Now()
			require.NoError(t, wait(t.Context(), ratelimit.NewQueue(lim), 1000))
			require.InDelta(t, time.Second, time.Since(start), float64(ratelimit.Recheck))
		})
	})

	t.Run("forty wait in line", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			lim := drained(1000, 1000)
			q := ratelimit.NewQueue(lim)
			start := time.Now()
			var group sync.WaitGroup
			for range 40 {
				group.Go(func() { require.NoError(t, wait(t.Context(), q, blockSize)) })
			}
			time.Sleep(time.Second)
			lim.SetLimit(1e6)
			group.Wait()
			require.Less(t, time.Since(start), 2500*time.Millisecond, "640 KiB at 1 MB/s, and the time to notice")
		})
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	for name, lim := range map[string]*rate.Limiter{
		"a low limit":       rate.NewLimiter(1, 1),
		"a limit of zero":   rate.NewLimiter(0, 0),
		"no limit":          rate.NewLimiter(rate.Inf, 0),
		"a limit far above": rate.NewLimiter(1e9, 1e9),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				start := time.Now()
				time.AfterFunc(100*time.Millisecond, cancel)
				for q := ratelimit.NewQueue(lim); wait(ctx, q, blockSize) == nil; {
					time.Sleep(time.Millisecond)
				}
				require.ErrorIs(t, ctx.Err(), context.Canceled)
				require.Less(t, time.Since(start), 110*time.Millisecond)
			})
		})
	}
}

func TestTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lim := rate.NewLimiter(1000, 1000)
		wake := make(chan struct{}, 1)
		turn := newTurn(wake, ratelimit.NewQueue(lim))
		tokens := func(want float64, why string) {
			t.Helper()
			require.InDelta(t, want, lim.TokensAt(time.Now()), 1e-6, why)
		}
		require.True(t, turn.Ready(800))
		require.True(t, turn.Ready(800))
		turn.Sent(500)
		tokens(500, "bytes that were not sent are refunded")
		require.False(t, turn.Ready(1500))
		require.False(t, turn.Ready(1500))
		tokens(-1000, "bytes are reserved once")
		require.False(t, turn.Ready(600))
		tokens(-100, "for other bytes there is another place")
		turn.Leave()
		tokens(500, "")
		turn.Leave()
		tokens(500, "once")

		require.False(t, turn.Ready(600))
		<-wake // in a tenth of a second, in which 100 bytes are earned
		turn.Leave()
		require.Greater(t, lim.TokensAt(time.Now()), 575., "what passed and was not sent is refunded")
	})
}

// Those that wait for the same limit send the same, however much they ask for at once, and through how many limits.
func TestTurnsAreOfEqualLength(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := ratelimit.NewQueue(drained(1e6, 64<<10))
		own := ratelimit.NewQueue(drained(1e6, 64<<10))
		var sent [4]int
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
		defer cancel()
		var group sync.WaitGroup
		for k, n := range []int{1 << 10, 16 << 10, 48 << 10, 128 << 10} {
			group.Go(func() {
				wake := make(chan struct{}, 1)
				turn := newTurn(wake, all)
				if k%2 == 0 {
					turn = newTurn(wake, own, all)
				}
				defer turn.Leave()
				for {
					for !turn.Ready(n) {
						select {
						case <-wake:
						case <-ctx.Done():
							return
						}
					}
					turn.Sent(n)
					sent[k] += n
				}
			})
		}
		group.Wait()
		require.InEpsilon(t, 100e6/3, sent[1], 0.05)
		require.InEpsilon(t, sent[1], sent[2], 0.05)
		require.InEpsilon(t, sent[1], sent[3], 0.05)
		require.Less(t, sent[0], sent[1]/8, "one that asks for little gets little")
	})
}

// Senders that leave just before their turn do not delay the others, and neither do those that do not use theirs.
func TestTurnsThatAreNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := ratelimit.NewQueue(drained(100e3, 16<<10))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
		defer cancel()
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				turn := newTurn(nil, q)
				defer turn.Leave()
				for ctx.Err() == nil {
					turn.Ready(128 << 10)
					time.Sleep(150 * time.Millisecond)
					turn.Leave()
				}
			})
		}
		for range 2 {
			turn := newTurn(nil, q)
			defer turn.Leave()
			turn.Ready(128 << 10)
		}
		sent := 0
		for wait(ctx, q, 16<<10) == nil {
			sent += 16 << 10
		}
		group.Wait()
		require.Greater(t, sent, 8_000_000, "of ten million that the limit lets through")
	})
}

// Those that send to one network have as many turns together as one that sends to another.
func TestTurnsAreOfNetworks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := ratelimit.NewQueue(drained(1e6, 64<<10))
		sent := make(map[string]int)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
		defer cancel()
		var group sync.WaitGroup
		for k := range 30 {
			network := "crowd"
			if k >= 20 {
				network = []string{"one", ""}[k%2]
			}
			leaves := k == 7 || k == 24
			group.Go(func() {
				wake := make(chan struct{}, 1)
				turn := newTurnOf(network, wake, q)
				defer turn.Leave()
				for {
					for !turn.Ready(blockSize) {
						select {
						case <-wake:
						case <-time.After(30 * time.Millisecond):
							if leaves {
								turn.Leave()
							}
						case <-ctx.Done():
							return
						}
					}
					turn.Sent(blockSize)
					sent[network] += blockSize
				}
			})
		}
		group.Wait()
		require.InEpsilon(t, 100e6/7, sent["crowd"], 0.1)
		require.InEpsilon(t, 100e6/7, sent["one"], 0.1)
		require.InEpsilon(t, 100e6/7*5, sent[""], 0.1)
	})
}
