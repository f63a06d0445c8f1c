package tracker

import "time"

// Status is the state of one tracker.
type Status struct {
	URL  string
	Tier int // from 0 (BEP 12)

	Announcing   bool      // an announce has no answer yet
	LastAnnounce time.Time // zero if never
	NextAnnounce time.Time // the latest time of the next one, if it is the tracker's turn then; zero if Announcing or final

	Err     *Error // nil unless the last announce failed or has no answer yet
	Warning string // the warning message in the last answer
	Peers   int    // addresses in the last answer
	Swarm   Scrape // of the last answer
}

// Status returns the state of every tracker, tier by tier, in the order in which they are tried.
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

// status returns the state of tr. The caller holds Announcer.mu.
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

// Errors returns the error of each tracker whose last announce failed or that has never answered.
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
