package portmap

import "time"

// An epoch is what a router's clock showed last. Routers begin to count seconds when they start, or lose
// their mappings, so that a clock which is wrong for its age means that the mappings are gone.
type epoch struct {
	seconds uint32
	at      time.Time // zero before the first answer
}

// restarted takes the clock of an answer to PCP, and reports whether the router has lost its state since
// the one before (RFC 6887, 8.5): its clock went back by more than a second, or it and ours went
// differently by more than a sixteenth and two seconds.
func (e *epoch) restarted(now time.Time, seconds uint32) bool {
	before := *e
	*e = epoch{seconds, now}
	if before.at.IsZero() {
		return false
	}
	ours := int64(now.Sub(before.at) / time.Second)
	theirs := int64(seconds) - int64(before.seconds)
	return theirs < -1 || ours+2 < theirs-theirs/16 || theirs+2 < ours-ours/16
}

// restartedNATPMP is restarted for an answer to NAT-PMP (RFC 6886, 3.6): the clock is behind what seven
// eighths of our time would have made it, by more than two seconds.
func (e *epoch) restartedNATPMP(now time.Time, seconds uint32) bool {
	before := *e
	*e = epoch{seconds, now}
	if before.at.IsZero() {
		return false
	}
	ours := int64(now.Sub(before.at) / time.Second)
	return int64(seconds) < int64(before.seconds)+ours*7/8-2
}
