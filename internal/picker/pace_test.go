package picker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// epoch is where the clocks of tests without a bubble start.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// A peer is snubbed once it has been silent for longer than its blocks have ever taken to come, within bounds.
func TestSnubPatience(t *testing.T) {
	for _, c := range []struct {
		blocks int
		every  time.Duration
		want   time.Duration
	}{
		{0, 0, snubTimeout},
		{7, time.Second, snubTimeout}, // too few to know
		{8, time.Second, minSnubTimeout},
		{8, 10 * time.Second, 12670 * time.Millisecond}, // the mean, and four times the 0.67 s that they seem to stray
		{100, 30 * time.Second, 30 * time.Second},
		{100, 500 * time.Second, maxSnubTimeout},
	} {
		r := &Supplier{}
		r.enqueue(outstanding{})
		r.heard = epoch
		for range c.blocks {
			r.blockTime.add(c.every)
		}
		require.False(t, r.overdue(epoch.Add(c.want-10*time.Millisecond)), "%+v", c)
		require.True(t, r.overdue(epoch.Add(c.want+10*time.Millisecond)), "%+v", c)
		r.queue = nil
		require.False(t, r.overdue(epoch.Add(time.Hour)), "who is asked for nothing keeps nobody waiting")
	}
}
