package picker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/layout"
)

// epoch is the start time of tests without a synctest bubble.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// A peer is snubbed when it has been silent for much longer than its blocks usually take, within bounds.
func TestSnubPatience(t *testing.T) {
	for _, c := range []struct {
		blocks int
		every  time.Duration
		want   time.Duration
	}{
		{0, 0, snubTimeout},
		{7, time.Second, snubTimeout}, // too few samples
		{8, time.Second, minSnubTimeout},
		{8, 10 * time.Second, 12670 * time.Millisecond}, // the mean, and four times the deviation of 0.67 s
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
		require.False(t, r.overdue(epoch.Add(time.Hour)), "nothing is requested from it")
	}
}

// The rate of a peer is measured over the last seconds in which requests were outstanding.
func TestRateOfAnswers(t *testing.T) {
	for silence, want := range map[time.Duration]float64{
		0:               layout.BlockSize, // the block may have been in a buffer
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
	require.InEpsilon(t, 2*layout.BlockSize, r.rate, 0.3, "the peer has become slower")
	r.add(layout.BlockSize, time.Minute, epoch)
	require.InEpsilon(t, layout.BlockSize/60., r.rate, 0.01, "the peer has become slower still")
}

// The older a measured rate is, the faster the peer is assumed to be.
func TestOldRateIsDoubted(t *testing.T) {
	var r Supplier
	r.pace.add(layout.BlockSize, 4*time.Second, epoch)
	r.pace.add(layout.BlockSize, 4*time.Second, epoch)
	took := r.eta(0, epoch)
	require.Equal(t, took/2, r.eta(0, epoch.Add(10*time.Second)))
	require.Equal(t, took/7, r.eta(0, epoch.Add(time.Hour)))
	r.heard = epoch.Add(time.Hour)
	r.enqueue(outstanding{at: r.heard})
	require.Equal(t, took/7, r.eta(0, r.heard), "a request alone changes nothing")
	require.Equal(t, took, r.eta(0, r.heard.Add(took)), "silence does")
	r.pace.add(layout.BlockSize, 4*time.Second, epoch.Add(time.Hour))
	require.Equal(t, took, r.eta(0, epoch.Add(time.Hour)))
}
