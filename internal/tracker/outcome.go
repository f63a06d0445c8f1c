package tracker

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
)

const (
	// The interval of a tracker is clamped to these bounds.
	leastInterval    = time.Minute
	greatestInterval = 24 * time.Hour
	defaultInterval  = 30 * time.Minute
	// hungryInterval is the default of `min interval`, unless the tracker's interval is shorter.
	hungryInterval = 5 * time.Minute

	firstRetry  = 15 * time.Second
	lastRetry   = 30 * time.Minute
	hungryRetry = 10 * time.Minute // likewise, while no peer is connected: if there was no network, peers were given up, too
)

// hungryRetries are the first delays while no peer is connected. A tracker that is just being started may answer soon.
var hungryRetries = [...]time.Duration{time.Second, 3 * time.Second, 7 * time.Second}

// retryAfter returns the delay after a failed announce before the next one. failures is the number of failures in a row
// before this one.
func retryAfter(failures int, hungry bool) time.Duration {
	last := lastRetry
	if hungry {
		if failures < len(hungryRetries) {
			return hungryRetries[failures]
		}
		failures -= len(hungryRetries)
		last = hungryRetry
	}
	return min(firstRetry<<min(failures, 16), last)
}

// answered records the answer of tr to an announce over one address family, and passes it on to the callbacks.
func (t *Announcer) answered(tr *tracker, f netaddr.Family, e event, a answer) {
	t.c.Log.Debug("announced", "tracker", tr.url, "event", e, "peers", len(a.peers), "interval", a.interval)
	t.c.Pace.underWay.ended(tr.u.Host, true)
	t.mu.Lock()
	tr.heard(a, time.Now())
	tr.joined[f].acknowledge(e, a)
	t.promote(tr)
	left := t.moveTo(tr)
	status := tr.status()
	t.mu.Unlock()
	t.tell(status)

	if left != nil {
		t.c.Dropped(left.url)
	}
	if len(a.peers) > 0 {
		t.c.Found(tr.url, a.peers)
	}
	t.Wake()
}

// heard records an answer. If another address family has answered the same announce before, the two are combined.
func (tr *tracker) heard(a answer, now time.Time) {
	if tr.asking {
		tr.asking, tr.peers, tr.swarm = false, 0, Scrape{}
	}
	tr.answered, tr.err, tr.failures, tr.slow, tr.warning = true, nil, 0, false, a.warning
	tr.peers += len(a.peers)
	tr.swarm = Scrape{
		Seeds:     max(tr.swarm.Seeds, a.swarm.Seeds),
		Leechers:  max(tr.swarm.Leechers, a.swarm.Leechers),
		Completed: max(tr.swarm.Completed, a.swarm.Completed),
	}
	soonest, next := a.intervals()
	tr.soonest, tr.next = now.Add(soonest), now.Add(next)
	if tr.sooner {
		tr.next, tr.sooner = tr.soonest, false
	}
}

// intervals returns the delays after an answer: soonest, before which the tracker must not be announced to again
// (`min interval`), and next, after which it is announced to (`interval`).
func (a *answer) intervals() (soonest, next time.Duration) {
	next = defaultInterval
	if a.interval > 0 {
		next = clampInterval(a.interval)
	}
	soonest = min(next, hungryInterval)
	if a.minInterval > 0 {
		soonest = clampInterval(a.minInterval)
	}
	return soonest, max(soonest, next)
}

func clampInterval(d time.Duration) time.Duration {
	return min(max(d, leastInterval), greatestInterval)
}

// acknowledge records that the tracker answered an announce of e.
func (r *registration) acknowledge(e event, a answer) {
	r.addr = a.addr
	if a.trackerID != "" {
		r.id = a.trackerID
	}
	switch e {
	case eventStarted:
		r.started = true
	case eventCompleted:
		r.completed = true
	}
}

// promote moves a tracker that answered to the front of its tier (BEP 12). The caller holds t.mu.
func (t *Announcer) promote(tr *tracker) {
	tier := t.tiers[tr.tier]
	if i := slices.Index(tier, tr); i > 0 {
		t.tiers[tr.tier] = slices.Insert(slices.Delete(tier, i, i+1), 0, tr)
	}
}

// moveTo makes tr the current tracker of a private torrent, and returns the one that was current before, if any. The caller
// holds t.mu.
func (t *Announcer) moveTo(tr *tracker) (left *tracker) {
	if !t.c.Private || t.current == tr {
		return nil
	}
	left, t.current, t.hungry = t.current, tr, time.Time{}
	return left
}

// failed records that an announce to tr failed with err. If run has ended, the failure says nothing about the tracker and is
// not counted.
func (t *Announcer) failed(run context.Context, tr *tracker, err error) {
	ended := run.Err() != nil
	failure := newError(tr.url, err)
	if !ended {
		t.c.Log.Info("announce failed", "tracker", tr.url, "reason", failure.Reason)
	}
	hungry := t.c.Hungry()
	defer t.Wake()
	t.mu.Lock()
	tr.asking = false
	if ended {
		t.mu.Unlock()
		return
	}
	r, refused := errors.AsType[*refusal](err)
	t.c.Pace.underWay.ended(tr.u.Host, refused)
	wait := retryAfter(tr.failures, hungry && !refused)
	tr.failures++
	tr.slow = time.Since(tr.askedAt) > hungryPatience
	if refused {
		tr.final = r.final
		if r.retry > 0 {
			wait = clampInterval(r.retry)
		}
	}
	tr.err = failure
	tr.next = time.Now().Add(wait)
	status := tr.status()
	t.mu.Unlock()
	t.tell(status)
}

// tell passes the outcome of an announce to Config.Heard.
func (t *Announcer) tell(s Status) {
	if t.c.Heard != nil {
		t.c.Heard(s)
	}
}
