package picker

import (
	"time"

	"github.com/shoal-go/torrent/internal/layout"
)

// The depth of a pipeline: how many requests may be outstanding to one peer.
const (
	startDepth   = 32
	maxDepth     = 2000
	defaultReqQ  = 250 // what a peer takes that does not say (BEP 10, reqq)
	pipelineTime = time.Second
)

// pipeline sizes the queue of requests to one peer: what the peer sends in one round trip plus one
// second. While the rate still grows with the depth, the depth doubles.
type pipeline struct {
	depth   int           // requests that may be outstanding
	limit   int           // the most that the peer takes
	rtt     time.Duration // the shortest time from request to block that was seen
	opening bool          // the depth still doubles

	since    time.Time // start of the present round
	received int       // bytes in it
	last     float64   // rate of the round before
}

func newPipeline() pipeline {
	return pipeline{depth: startDepth, limit: defaultReqQ, opening: true}
}

// setLimit takes note of how many requests the peer says it takes.
func (p *pipeline) setLimit(reqq int) {
	p.limit = min(max(reqq, 1), maxDepth)
	p.depth = min(p.depth, p.limit)
}

// asked notes that the first request after idleness goes out: time spent idle is no measure.
func (p *pipeline) asked(now time.Time) {
	p.since, p.received = now, 0
}

// got notes a block of n bytes that had been asked for at the given time. rate is the peer's
// smoothed rate in bytes a second.
func (p *pipeline) got(n int, asked, now time.Time, rate float64) {
	if d := now.Sub(asked); p.rtt == 0 || d < p.rtt {
		p.rtt = d
	}
	p.received += n
	round := max(2*p.rtt, 50*time.Millisecond)
	elapsed := now.Sub(p.since)
	if elapsed < round {
		return
	}
	measured := float64(p.received) / elapsed.Seconds()
	p.since, p.received = now, 0
	if p.opening {
		if measured < 1.2*p.last {
			p.opening = false
		} else {
			p.depth = min(2*p.depth, p.limit)
		}
		p.last = measured
		return
	}
	want := int(max(rate, measured) * (p.rtt + pipelineTime).Seconds() / layout.BlockSize)
	p.depth = min(max(want, startDepth), p.limit)
}

// room is how many requests should be sent now, with queued of them outstanding. It lets the queue
// drain by a quarter first, so that requests go out many at a time.
func (p *pipeline) room(queued int) int {
	if queued > p.depth-p.depth/4 {
		return 0
	}
	return p.depth - queued
}
