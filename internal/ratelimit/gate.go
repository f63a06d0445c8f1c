package ratelimit

import "time"

// maxUnused bounds the burst that requests refunded to a gate may cause. It is more than peers that have answered nothing get.
const maxUnused = 256

// A Gate paces the requests of one download, so that what peers send in answer stays within its
// limits. It holds back requests, not reads, so that TCP never stalls.
type Gate struct {
	limits Limits
	block  int // bytes that one request asks for

	unused int         // requests that were admitted and came to nothing
	queued bool        // whether next holds a place
	next   reservation // the place in the queue of the request after those admitted
	pause  time.Duration
}

// NewGate returns a gate for requests of block bytes each.
func NewGate(l Limits, block int) Gate { return Gate{limits: l, block: block} }

// Limited reports whether there is a limit.
func (g *Gate) Limited() bool { return len(g.limits) > 0 }

// Admit returns how many requests may be sent now, at most most.
func (g *Gate) Admit(now time.Time, most int) (n int) {
	g.pause = 0
	if len(g.limits) == 0 {
		return most
	}
	n = min(g.unused, most)
	g.unused -= n
	for n < most {
		if !g.queued {
			if g.next, g.queued = g.limits.reserve(now, g.block); !g.queued {
				g.pause = recheck
				return n
			}
		}
		if delay := g.next.delay(now); delay > slack {
			g.pause = min(delay-slack/2, recheck)
			return n
		}
		g.queued = false
		n++
	}
	return n
}

// Pause is how long after the last Admit to ask again; 0 if that admitted all it was asked for.
func (g *Gate) Pause() time.Duration { return g.pause }

// Refund returns requests that were admitted and not sent, or not answered. They pass first next time.
func (g *Gate) Refund(n int) {
	if len(g.limits) > 0 {
		g.unused = min(g.unused+n, maxUnused)
	}
}

// Release refunds to the limits what was admitted or reserved and will not be used: others may share
// them. The gate goes on working.
func (g *Gate) Release(now time.Time) {
	for _, lim := range g.limits {
		putBack(lim, now, g.unused*g.block)
	}
	if g.queued {
		g.next.refund(now, g.block)
	}
	g.unused, g.queued = 0, false
}
