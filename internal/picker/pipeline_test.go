package picker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/layout"
)

// pipe simulates a supplier that sends rate bytes a second, each block at least a round trip after its request. It keeps as many
// requests outstanding as the pipeline says.
func pipe(p *pipeline, rate float64, rtt, d time.Duration, now time.Time) time.Time {
	var asked []time.Time
	link := now // when the link is free
	for end := now.Add(d); now.Before(end); {
		if len(asked) == 0 {
			p.asked(now)
		}
		for range p.room(len(asked)) {
			asked = append(asked, now)
		}
		came := asked[0].Add(rtt)
		if link.After(came) {
			came = link
		}
		link = came.Add(time.Duration(layout.BlockSize / rate * float64(time.Second)))
		now = link
		p.received(layout.BlockSize, asked[0], now, rate)
		asked = asked[1:]
	}
	return now
}

func TestPipelineDepth(t *testing.T) {
	for _, c := range []struct {
		name   string
		rate   float64
		rtt    time.Duration
		limit  int
		atMost int // requests: the blocks of a round trip and a second
	}{
		{"a slow peer", 50e3, 50 * time.Millisecond, 500, startDepth},
		{"a fast one nearby", 20e6, time.Millisecond, 2000, 1300},
		{"a fast one far away", 10e6, 300 * time.Millisecond, 2000, 850},
		{"one that is limited by its reqq", 100e6, 100 * time.Millisecond, 250, 250},
		{"one that takes few requests", 1e6, 100 * time.Millisecond, 5, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPipeline(false)
			p.setLimit(c.limit)
			now := pipe(&p, c.rate, c.rtt, 5*time.Second, epoch)
			require.InDelta(t, (c.rtt + time.Duration(layout.BlockSize/c.rate*1e9)).Seconds(), p.rtt.Seconds(), 1e-3)
			require.LessOrEqual(t, p.depth, c.atMost)
			want := min(c.rate*(c.rtt+pipelineTime).Seconds()/layout.BlockSize, float64(c.limit))
			require.GreaterOrEqual(t, p.depth, int(want*9/10), "with fewer requests the peer would pause")

			pipe(&p, 10e3, c.rtt, 20*time.Second, now)
			require.LessOrEqual(t, p.depth, startDepth, "the depth shrinks with the rate")
		})
	}
}

// While the rate grows with it, the depth doubles in each round, so that a fast peer has enough requests after a few round trips.
func TestPipelineOpensFast(t *testing.T) {
	p := newPipeline(false)
	p.setLimit(maxDepth)
	pipe(&p, 100e6, 50*time.Millisecond, 600*time.Millisecond, epoch)
	require.GreaterOrEqual(t, p.depth, 8*startDepth)
}

func TestPipelineLimit(t *testing.T) {
	p := newPipeline(false)
	require.Equal(t, startDepth, p.room(0))
	p.setLimit(0)
	require.Equal(t, 1, p.room(0), "at least one request")
	p.setLimit(1 << 30)
	require.Equal(t, maxDepth, p.limit)
	p.depth = 40
	require.Equal(t, 10, p.room(30), "a quarter is free: requests are sent together")
	require.Zero(t, p.room(31), "not one by one")
}

// Time without an outstanding request does not lower the measured rate.
func TestPipelineIdle(t *testing.T) {
	p := newPipeline(false)
	p.setLimit(maxDepth)
	now := pipe(&p, 20e6, 20*time.Millisecond, 5*time.Second, epoch)
	depth := p.depth
	pipe(&p, 20e6, 20*time.Millisecond, 100*time.Millisecond, now.Add(time.Hour))
	require.GreaterOrEqual(t, p.depth, depth*8/10)
}

// Where requests cost much, a supplier gets few until it answers, and again after it let some go.
func TestPipelineOfCarefulSupplier(t *testing.T) {
	p := newPipeline(true)
	require.Equal(t, carefulDepth, p.room(0))
	now := pipe(&p, 20e6, time.Millisecond, time.Second, epoch)
	require.GreaterOrEqual(t, p.depth, defaultReqQ*9/10)
	p.again()
	require.Equal(t, carefulDepth, p.room(0))
	pipe(&p, 20e6, time.Millisecond, time.Second, now)
	require.GreaterOrEqual(t, p.depth, defaultReqQ*9/10)
}
