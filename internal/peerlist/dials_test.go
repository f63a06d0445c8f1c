package peerlist

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDialBudget(t *testing.T) {
	var b dials
	now := epoch
	allowed := func(want int, wait time.Duration, why string) {
		t.Helper()
		n, w := b.allowance(now)
		require.Equal(t, want, n, why)
		require.Equal(t, wait, w, why)
	}
	allowed(20, 0, "twenty may be half open")
	for range 20 {
		b.begin(now)
		b.halfOpen++
	}
	allowed(0, 0, "no time will help, only a dial that ends")
	for range 20 {
		b.end()
	}
	allowed(10, 0, "thirty in a second")
	now = now.Add(600 * time.Millisecond)
	for range 10 {
		b.begin(now)
		b.halfOpen++
	}
	require.Equal(t, 400*time.Millisecond, b.wait(now))
	allowed(0, 400*time.Millisecond, "until the first twenty are a second old")
	now = now.Add(400 * time.Millisecond)
	allowed(10, 0, "ten are still half open")
	for range 10 {
		b.end()
	}
	allowed(20, 0, "")
	now = now.Add(time.Hour)
	allowed(20, 0, "nothing is saved up")
}
