package portmap

import "time"

const (
	lifetime    = time.Hour        // of a mapping, as it is asked for
	maxLifetime = 24 * time.Hour   // what is believed of an answer (RFC 6887, 15)
	minRenewal  = 30 * time.Second // between renewals, however short the leases of a router
	retryFirst  = time.Minute      // after the first failure
	retryMost   = 30 * time.Minute // after many
)

// checkEvery is how often a router is asked whether it has restarted or forgotten the mapping. By PCP
// and NAT-PMP that is one small packet.
func checkEvery(by Protocol) time.Duration {
	if by == UPnP {
		return 5 * time.Minute
	}
	return time.Minute
}

// A lease schedules the next step for one router's mapping. It is plain data. A zero lease holds nothing and asks for
// the mapping at once.
type lease struct {
	until    time.Time // the mapping ends unless it is renewed; zero if there is none
	renew    time.Time // while granted
	check    time.Time // while granted
	retry    time.Time // zero while granted: the last attempt succeeded
	granted  bool      // the last attempt to map succeeded, and nothing showed since that the mapping is gone
	had      bool      // the router has granted something before
	failures int       // since then
}

// A step is an action that a lease asks for.
type step uint8

const (
	stepMap   step = iota // make or renew the mapping
	stepCheck             // ask whether it is there still
	stepEnd               // it is gone
)

// next returns the step that is due first, and when.
func (l *lease) next() (step, time.Time) {
	switch {
	case l.granted && l.check.Before(l.renew):
		return stepCheck, l.check
	case l.granted:
		return stepMap, l.renew
	case !l.until.IsZero() && l.until.Before(l.retry):
		return stepEnd, l.until
	}
	return stepMap, l.retry
}

// grant records that the mapping was made or renewed for some time.
func (l *lease) grant(now time.Time, life time.Duration, by Protocol) {
	life = min(life, maxLifetime)
	renew := life / 2
	if by == UPnP {
		renew = life / 4 * 3
	}
	*l = lease{
		until:   now.Add(life),
		renew:   now.Add(max(renew, minRenewal)),
		check:   now.Add(checkEvery(by)),
		granted: true,
		had:     true,
	}
}

// checked records that the mapping is there.
func (l *lease) checked(now time.Time, by Protocol) {
	l.check = now.Add(checkEvery(by))
}

// lose records that the router has forgotten the mapping, or does not answer: it is asked again at once. The mapping
// counts as held until its lifetime is over.
func (l *lease) lose(now time.Time) {
	l.granted, l.retry = false, now
}

// fail records that the mapping could not be made or renewed. A router that granted one before is
// asked again every minute, as it may only be restarting; any other less and less often. wait is how long
// it said that the answer will be the same.
func (l *lease) fail(now time.Time, wait time.Duration) {
	l.granted = false
	l.failures++
	pause := retryFirst
	if !l.had {
		pause = min(retryFirst<<min(l.failures-1, 10), retryMost)
	}
	l.retry = now.Add(max(pause, min(wait, retryMost)))
}

// end records that nothing is held.
func (l *lease) end() {
	l.until = time.Time{}
}

// hurry makes the next step due now.
func (l *lease) hurry(now time.Time) {
	if l.granted {
		l.check = now
	} else {
		l.retry = now
	}
}
