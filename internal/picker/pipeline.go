package picker

import (
	"time"

	"github.com/shoal-go/torrent/internal/layout"
)

const (
	startDepth   = 32
	carefulDepth = 2 // of a Careful supplier, in place of startDepth
	maxDepth     = 2000
	defaultReqQ  = 250 // limit of a peer that sends no reqq (BEP 10)
	pipelineTime = time.Second
)

// A pipeline decides how many requests may be outstanding to a supplier: as many as it answers in a round-trip time and
// pipelineTime. At first the depth doubles as long as the rate grows with it.
type pipeline struct {
	least    int           // the depth is no less
	depth    int           // requests that may be outstanding
	limit    int           // greatest depth, as the supplier allows
	rtt      time.Duration // shortest time from a request to its block so far
	doubling bool          // the depth still doubles

	since time.Time // start of the current round; the rate is measured at its end
	bytes int       // received in the current round
	last  float64   // rate of the previous round
}

func newPipeline(careful bool) pipeline {
	least := startDepth
	if careful {
		least = carefulDepth
	}
	return pipeline{least: least, depth: least, limit: defaultReqQ, doubling: true}
}

// again starts as with a new supplier.
func (p *pipeline) again() { p.depth, p.doubling, p.last = min(p.least, p.limit), true, 0 }

// setLimit sets how many outstanding requests the supplier allows.
func (p *pipeline) setLimit(n int) {
	p.limit = min(max(n, 1), maxDepth)
	p.depth = min(p.depth, p.limit)
}

// asked starts a round when the first request after a pause is sent, so that the pause is not measured.
func (p *pipeline) asked(now time.Time) {
	p.since, p.bytes = now, 0
}

// received counts a block of n bytes that was requested at the time asked. rate is the smoothed rate of the supplier in bytes a
// second.
func (p *pipeline) received(n int, asked, now time.Time, rate float64) {
	if d := now.Sub(asked); p.rtt == 0 || d < p.rtt {
		p.rtt = d
	}
	p.bytes += n
	round := max(2*p.rtt, 50*time.Millisecond)
	elapsed := now.Sub(p.since)
	if elapsed < round {
		return
	}
	measured := float64(p.bytes) / elapsed.Seconds()
	p.since, p.bytes = now, 0
	if p.doubling {
		if measured < 1.2*p.last {
			p.doubling = false
		} else {
			p.depth = min(2*p.depth, p.limit)
		}
		p.last = measured
		return
	}
	want := int(max(rate, measured) * (p.rtt + pipelineTime).Seconds() / layout.BlockSize)
	p.depth = min(max(want, p.least), p.limit)
}

// room returns how many requests to send now, while queued are outstanding. It returns 0 until a quarter of the depth is free, so
// that many requests are sent together.
func (p *pipeline) room(queued int) int {
	if queued > p.depth-p.depth/4 {
		return 0
	}
	return p.depth - queued
}
