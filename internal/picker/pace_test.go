package picker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/layout"
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
		require.False(t, r.overdue(epoch.Add(time.Hour)), "it is asked for nothing")
	}
}

// The rate of a peer is that of the last seconds in which it was asked for something.
func TestRateOfAnswers(t *testing.T) {
	for silence, want := range map[time.Duration]float64{
		0:               layout.BlockSize, // that may have been ready
		time.Second:     layout.BlockSize,
		5 * time.Second: layout.BlockSize / 5.,
		time.Minute:     layout.BlockSize / 60.,
	} {
		var r pace
		r.add(layout.BlockSize, silence, epoch)
		require.InEpsilon(t, want, r.rate, 1e-9, silence)
	}
	var r pace
	for range 50 {
		r.add(layout.BlockSize, 100*time.Millisecond, epoch)
	}
	require.InEpsilon(t, 10*layout.BlockSize, r.rate, 1e-9)
	for range 10 {
		r.add(layout.BlockSize, time.Second, epoch)
	}
	require.InEpsilon(t, 2*layout.BlockSize, r.rate, 0.3, "it has become slower")
	r.add(layout.BlockSize, time.Minute, epoch)
	require.InEpsilon(t, layout.BlockSize/60., r.rate, 0.01, "and slower")
}

// That a peer is slow is believed less and less until it shows it again.
func TestOldRateIsDoubted(t *testing.T) {
	var r Supplier
	r.pace.add(layout.BlockSize, 4*time.Second, epoch)
	r.pace.add(layout.BlockSize, 4*time.Second, epoch)
	took := r.eta(0, epoch)
	require.Equal(t, took/2, r.eta(0, epoch.Add(10*time.Second)))
	require.Equal(t, took/7, r.eta(0, epoch.Add(time.Hour)))
	r.heard = epoch.Add(time.Hour)
	r.enqueue(outstanding{at: r.heard})
	require.Equal(t, took/7, r.eta(0, r.heard), "to be asked changes nothing yet")
	require.Equal(t, took, r.eta(0, r.heard.Add(took)), "silence does")
	r.pace.add(layout.BlockSize, 4*time.Second, epoch.Add(time.Hour))
	require.Equal(t, took, r.eta(0, epoch.Add(time.Hour)))
}
