package ratelimit_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent/internal/ratelimit"
)

// pass counts the answers of a thousand bytes that may be sent within so many seconds.
func pass(a *ratelimit.Answers, now *time.Time, l ratelimit.Limits, seconds int) (n int) {
	for end := now.Add(time.Duration(seconds) * time.Second); now.Before(end); {
		wait := a.Delay(*now, l, 1000)
		if wait == 0 {
			n++
		}
		*now = now.Add(wait)
	}
	return n
}

func TestAnswers(t *testing.T) {
	var a ratelimit.Answers
	now := epoch
	require.Zero(t, a.Delay(now, nil, 1000))
	lim := rate.NewLimiter(1000, 5000)
	l := ratelimit.Join(lim, rate.NewLimiter(rate.Inf, 0))
	require.InDelta(t, 105, pass(&a, &now, l, 100), 1, "the burst, and all of the limit if no block waits for it")

	turn := ratelimit.NewTurn(l)
	require.NotZero(t, turn.Delay(now, 1_000_000))
	before := lim.TokensAt(now)
	require.InDelta(t, 50, pass(&a, &now, l, 100), 1, "half of it, ahead of blocks that wait")
	require.InDelta(t, before+50_000, lim.TokensAt(now), 2000, "which have the other half")
	turn.Leave(now)

	other := ratelimit.Join(lim, rate.NewLimiter(100, 1))
	require.InDelta(t, 10, pass(&a, &now, other, 100), 1, "the lower one counts, whatever its bucket holds")
	lim.SetLimitAt(now, 0)
	require.NotZero(t, a.Delay(now.Add(time.Hour), l, 1000), "a limit of nothing")
	lim.SetLimitAt(now, rate.Inf)
	require.Zero(t, a.Delay(now.Add(time.Hour), l, 1000))
}
