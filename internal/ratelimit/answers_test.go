package ratelimit_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent/internal/ratelimit"
)

// pass is how many messages of 1000 bytes pass in some seconds.
func pass(a *ratelimit.Answers, l ratelimit.Limits, seconds int) (n int) {
	for end := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(end); {
		wait := a.Delay(time.Now(), l, 1000)
		if wait == 0 {
			n++
		}
		time.Sleep(wait)
	}
	return n
}

func TestAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a ratelimit.Answers
		require.Zero(t, a.Delay(time.Now(), nil, 1000))
		lim := rate.NewLimiter(1000, 5000)
		l := ratelimit.Join(lim, rate.NewLimiter(rate.Inf, 0))
		require.InDelta(t, 105, pass(&a, l, 100), 1, "the burst, and all of the limit if no block waits for it")

		ctx, cancel := context.WithCancel(t.Context())
		blocks := make(chan int)
		go func() {
			n := 0
			for q := ratelimit.NewQueue(lim); wait(ctx, q, 1000) == nil; {
				n++
			}
			blocks <- n
		}()
		synctest.Wait()
		require.InDelta(t, 50, pass(&a, l, 100), 1, "half of it, ahead of blocks that wait")
		cancel()
		require.InDelta(t, 50, <-blocks, 2, "which have the other half")

		other := ratelimit.Join(lim, rate.NewLimiter(100, 1))
		require.InDelta(t, 10, pass(&a, other, 100), 1, "the lower one counts, whatever its bucket holds")
		lim.SetLimit(0)
		time.Sleep(time.Hour)
		require.NotZero(t, a.Delay(time.Now(), l, 1000), "a limit of nothing")
		lim.SetLimit(rate.Inf)
		require.Zero(t, a.Delay(time.Now(), l, 1000))
	})
}
