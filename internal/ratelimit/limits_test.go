package ratelimit

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"
)

const blockSize = 16 << 10

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestLimits(t *testing.T) {
	a, b := rate.NewLimiter(1, 1), rate.NewLimiter(2, 2)
	require.Empty(t, Join(nil, nil))
	require.Equal(t, Limits{a, b}, Join(a, b))
	require.Equal(t, Limits{b}, Join(nil, b))
	require.Equal(t, Limits{a}, Join(a, nil))
	require.Equal(t, Limits{a}, Join(a, a), "the same limiter applies once")
}

func TestReserve(t *testing.T) {
	for _, tc := range []struct {
		name string
		lims Limits
		n    int
		want time.Duration
		ok   bool
	}{
		{"without limits all passes", nil, 1 << 30, 0, true},
		{"an infinite limit is none", Limits{rate.NewLimiter(rate.Inf, 0)}, 1 << 30, 0, true},
		{"a full bucket pays at once", Limits{rate.NewLimiter(1000, 500)}, 500, 0, true},
		{"missing tokens are waited for", Limits{rate.NewLimiter(1000, 500)}, 1500, time.Second, true},
		{"a bucket of one token will do", Limits{rate.NewLimiter(1000, 1)}, 2001, 2 * time.Second, true},
		{"the strictest of several decides", Limits{rate.NewLimiter(1000, 10), rate.NewLimiter(100, 10)}, 1010, 10 * time.Second, true},
		{"a limit of 0 lets nothing pass", Limits{rate.NewLimiter(0, 500)}, 1, 0, false},
		{"a bucket of 0 is made one of a block", Limits{rate.NewLimiter(1000, 0)}, 2000, 2 * time.Second, true},
		{"the wait is bounded for a limit that is next to nothing", Limits{rate.NewLimiter(1e-12, 1)}, 1 << 20, time.Hour, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, ok := tc.lims.reserve(epoch, tc.n)
			require.Equal(t, tc.ok, ok)
			require.InDelta(t, tc.want, r.delay(epoch), float64(time.Millisecond))
		})
	}

	t.Run("nothing is taken where one lets nothing pass", func(t *testing.T) {
		open, shut := rate.NewLimiter(1, 10), rate.NewLimiter(0, 10)
		_, ok := Join(open, shut).reserve(epoch, 10)
		require.False(t, ok)
		require.InDelta(t, 10, open.TokensAt(epoch), 1e-6)
	})
}

func TestRefund(t *testing.T) {
	lim, other := rate.NewLimiter(1000, 500), rate.NewLimiter(rate.Inf, 0)
	l := Join(lim, other)
	first, _ := l.reserve(epoch, 1500)
	second, _ := l.reserve(epoch, 1000)
	require.InDelta(t, 2*time.Second, second.delay(epoch), float64(time.Millisecond))
	first.refund(epoch, 1500)
	require.InDelta(t, 500*time.Millisecond, second.delay(epoch), float64(time.Millisecond), "it moves up")
	second.refund(epoch, 1000)
	second.refund(epoch, -1)
	require.InDelta(t, 500, lim.TokensAt(epoch), 1e-6)
	first.refund(epoch, 100)
	require.InDelta(t, 500, lim.TokensAt(epoch.Add(time.Hour)), 1e-6, "the bucket holds no more than before")
}

func BenchmarkReserve(b *testing.B) {
	l := Join(rate.NewLimiter(1e12, 1<<20), rate.NewLimiter(1e12, 1<<20))
	b.ReportAllocs()
	for b.Loop() {
		now := time.Now()
		r, _ := l.reserve(now, blockSize)
		r.delay(now)
	}
}
