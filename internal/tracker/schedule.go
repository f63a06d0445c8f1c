package tracker

import (
	"context"
	"slices"
	"time"
)

const (
	// hungryPatience is how long a download without peers waits for a tracker, or for the peers that
	// one named, before it asks the next of the tier beside it.
	hungryPatience = time.Second
	// tierPatience is the same while there are peers: as long as BEP 15 waits before it repeats itself.
	tierPatience = 15 * time.Second

	askedAtOnce = 10 // trackers that have been asked and are still within the patience
)

// Run announces until ctx ends, and returns when nothing is under way any more.
func (t *Announcer) Run(ctx context.Context) {
	defer t.asking.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		hungry := t.c.Hungry()
		t.mu.Lock()
		now := time.Now()
		ask, again := t.due(now, hungry)
		for _, tr := range ask {
			t.ask(ctx, tr, now)
		}
		t.mu.Unlock()

		timer.Stop()
		if !again.IsZero() {
			timer.Reset(again.Sub(now))
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-t.woken:
		}
	}
}

// due picks the trackers to announce to now, and says when to look again; a zero time is not before
// something happens. The caller holds t.mu.
func (t *Announcer) due(now time.Time, hungry bool) (ask []*tracker, again time.Time) {
	r := round{now: now, hungry: hungry, private: t.c.Private, patience: tierPatience}
	if hungry {
		r.patience = hungryPatience
	}
	for tr := range t.all() {
		r.takeNews(tr, t.completed)
	}
	if t.c.Private {
		r.walk(t.oneByOne())
	} else {
		for _, tier := range t.tiers {
			r.walk(tier)
		}
	}
	return r.ask, r.again
}

// A round is one look at the schedule.
type round struct {
	now             time.Time
	hungry, private bool
	patience        time.Duration

	ask       []*tracker // to be announced to now
	waitedFor int        // these, and the trackers that were asked before and are still within the patience
	again     time.Time  // the next look; zero is not before something happens
}

// lookAt has the next round begin at a time, if it is to begin no sooner.
func (r *round) lookAt(at time.Time) {
	if r.again.IsZero() || at.Before(r.again) {
		r.again = at
	}
}

// takeNews asks tr if an event is due to it, and counts it if it has been asked already.
func (r *round) takeNews(tr *tracker, completed bool) {
	if until := tr.askedAt.Add(r.patience); tr.asking && r.now.Before(until) {
		r.lookAt(until)
		r.waitedFor++
	} else if !tr.asking && !tr.final && tr.hasNews(completed) {
		r.ask = append(r.ask, tr)
		r.waitedFor++
	}
}

// walk goes through a tier until one of its trackers serves it.
func (r *round) walk(tier []*tracker) {
	for _, tr := range tier {
		if !tr.final && r.serves(tr) {
			return
		}
	}
}

// serves asks tr if it is due, and reports whether those behind it in its tier need not be asked for now.
func (r *round) serves(tr *tracker) bool {
	at := tr.dueAt(r.hungry)
	switch {
	case tr.asking || slices.Contains(r.ask, tr):
		return r.waitsFor(tr)
	case r.now.Before(at):
		r.lookAt(at)
		return r.suffices(tr)
	case r.waitedFor < askedAtOnce:
		r.ask = append(r.ask, tr)
		r.waitedFor++
		return r.waitsFor(tr)
	}
	return true
}

// suffices reports whether the last answer of tr, which is not due yet, serves its tier.
func (r *round) suffices(tr *tracker) bool {
	switch {
	case !tr.working():
		return false
	case !r.hungry || r.private:
		return true
	}
	return tr.peers > 0 && r.waitsFor(tr)
}

// waitsFor reports whether it is too early to ask another tracker beside tr, which has been asked: for
// its answer, or for the peers that it named.
func (r *round) waitsFor(tr *tracker) bool {
	if r.private {
		return true
	}
	asked := tr.askedAt
	if slices.Contains(r.ask, tr) {
		asked = r.now
	}
	until := asked.Add(r.patience)
	if !r.now.Before(until) {
		return false
	}
	r.lookAt(until)
	return true
}

// dueAt is when tr may be announced to again. A tracker that works sets how soon that may be.
func (tr *tracker) dueAt(hungry bool) time.Time {
	if hungry && tr.working() {
		return tr.soonest
	}
	return tr.next
}
