package tracker

import "time"

// Status is what is known of one tracker.
type Status struct {
	URL  string
	Tier int // from 0 (BEP 12)

	Announcing   bool      // it has been asked and not yet answered
	LastAnnounce time.Time // when it was last asked; zero if never
	NextAnnounce time.Time // when it is asked again at the latest, if it is still its turn then; zero if it never is

	Err     *Error // nil unless the last announce failed or has no answer yet
	Warning string // what it said beside its last answer
	Peers   int    // addresses in its last answer
	Swarm   Scrape // as it last said
}

// Status returns a snapshot of every tracker, tier by tier in the order in which they are tried.
func (t *Announcer) Status() []Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	var all []Status
	for tr := range t.all() {
		s := tr.status()
		if s.Err == nil && tr.asking && now.Sub(tr.askedAt) >= hungryPatience {
			s.Err = tr.silence()
		}
		all = append(all, s)
	}
	return all
}

// status is a snapshot. The caller holds the Announcer's mu.
func (tr *tracker) status() Status {
	s := Status{
		URL: tr.url, Tier: tr.tier,
		Announcing: tr.asking, LastAnnounce: tr.askedAt,
		Err: tr.err, Warning: tr.warning, Peers: tr.peers, Swarm: tr.swarm,
	}
	if !tr.asking && !tr.final {
		s.NextAnnounce = tr.next
	}
	return s
}

// Errors returns why each tracker failed whose last announce failed, or that never answered.
func (t *Announcer) Errors() []*Error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []*Error
	for tr := range t.all() {
		if tr.err != nil {
			errs = append(errs, tr.err)
		} else if !tr.answered && !tr.askedAt.IsZero() {
			errs = append(errs, tr.silence())
		}
	}
	return errs
}

// silence returns the error of a tracker that has not answered so far.
func (tr *tracker) silence() *Error { return &Error{URL: tr.url, Reason: "no answer yet"} }
