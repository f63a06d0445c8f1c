package tracker

import (
	"context"
	"slices"
	"time"
)

const (
	// hungryPatience is how long a download without peers waits for a tracker's answer, or for a connection to the peers
	// in it, before it also asks the next tracker of the tier.
	hungryPatience = time.Second
	// tierPatience is the same for a download with peers. It is the time before the first retransmission in BEP 15.
	tierPatience = 15 * time.Second

	// hungryStay is how long a private torrent stays at a tracker that works while the download is hungry. It may have come there
	// because the tracker that knows its swarm failed for a minute.
	hungryStay = 10 * time.Minute

	askedAtOnce = 10 // trackers that may be waited for at the same time
)

// Run announces until ctx ends. It returns when no announce is under way any more.
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

// due returns the trackers to announce to now, and the time to call it again. A zero time means not before Wake is called. The
// caller holds t.mu.
func (t *Announcer) due(now time.Time, hungry bool) (ask []*tracker, again time.Time) {
	r := round{now: now, hungry: hungry, private: t.c.Private, patience: tierPatience, hosts: t.hosts, underWay: &t.c.Pace.underWay}
	if hungry {
		r.patience = hungryPatience
	}
	for tr := range t.all() {
		r.takeNews(tr, t.completed)
	}
	if t.c.Private {
		switch leaves := t.hungry.Add(hungryStay); {
		case !hungry:
			t.hungry = time.Time{}
		case t.hungry.IsZero():
			t.hungry = now
			r.lookAt(now.Add(hungryStay))
		case now.Before(leaves):
			r.lookAt(leaves)
		default:
			r.leaves = t.current
		}
		r.walk(t.oneByOne(r.leaves != nil))
	} else {
		for _, tier := range t.tiers {
			r.walk(tier)
		}
	}
	return r.ask, r.again
}

// A round is one evaluation of the schedule.
type round struct {
	now             time.Time
	hungry, private bool
	patience        time.Duration
	hosts           hosts
	underWay        *underWay
	leaves          *tracker // a private torrent leaves it for another that answers; may be nil

	ask       []*tracker // the trackers to announce to now
	waitedFor int        // how many are in ask, or were asked less than patience ago and have not answered
	again     time.Time  // of the next round; zero means not before Wake is called
}

// lookAt makes the next round begin at the given time at the latest.
func (r *round) lookAt(at time.Time) {
	if r.again.IsZero() || at.Before(r.again) {
		r.again = at
	}
}

// takeNews asks tr if an event is due to it. If tr was asked less than patience ago and has not answered, takeNews counts it.
func (r *round) takeNews(tr *tracker, completed bool) {
	if until := tr.askedAt.Add(r.patience); tr.asking && r.now.Before(until) {
		r.lookAt(until)
		r.waitedFor++
	} else if !tr.asking && !tr.final && tr.hasNews(completed) && r.allows(tr) {
		r.add(tr)
	}
}

// allows reports whether tr may be asked: its host was not asked too often recently, and there are not too many announces under way.
func (r *round) allows(tr *tracker) bool {
	at := r.hosts.next(tr)
	if tr.u.Scheme == "udp" {
		if room := r.underWay.next(tr, len(r.ask)); room.After(at) {
			at = room
		}
	}
	if r.now.Before(at) {
		r.lookAt(at)
		return false
	}
	return true
}

// add has tr asked.
func (r *round) add(tr *tracker) {
	r.ask = append(r.ask, tr)
	r.waitedFor++
	r.hosts.add(tr, r.now)
}

// walk goes through a tier until one of its trackers serves the tier.
func (r *round) walk(tier []*tracker) {
	for _, tr := range tier {
		if !tr.final && r.serves(tr) {
			return
		}
	}
}

// serves asks tr if it is due, and reports whether the trackers after it in its tier need not be asked now.
func (r *round) serves(tr *tracker) bool {
	at := tr.dueAt(r.hungry)
	switch {
	case tr.asking || slices.Contains(r.ask, tr):
		return r.waitsFor(tr)
	case r.now.Before(at):
		r.lookAt(at)
		return r.suffices(tr)
	case !r.allows(tr):
		return r.suffices(tr)
	case r.waitedFor < askedAtOnce:
		r.add(tr)
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
		return r.leaves == nil || tr == r.leaves
	}
	return tr.peers > 0 && r.waitsFor(tr)
}

// waitsFor reports whether it is too early to ask another tracker besides tr, which has been asked. The download waits for the
// answer of tr, or for a connection to the peers in it.
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

// dueAt returns when tr is due. For a hungry download, a tracker that works is due as soon as its `min interval` allows.
func (tr *tracker) dueAt(hungry bool) time.Time {
	if hungry && tr.working() {
		return tr.soonest
	}
	return tr.next
}
