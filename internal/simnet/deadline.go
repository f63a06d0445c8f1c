package simnet

import (
	"sync"
	"time"
)

// deadline wakes what waits on cond when it passes. However often it is put off, one event at a time is
// under way for it.
type deadline struct {
	net   *Network
	cond  *sync.Cond
	at    time.Time     // zero is never
	event time.Duration // of the earliest event under way, 0 for none
}

// The caller holds d.net.mu.
func (d *deadline) expired() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// set changes the deadline. The caller holds d.net.mu.
func (d *deadline) set(t time.Time) {
	d.at = t
	d.arm()
	d.cond.Broadcast()
}

// arm makes the event of the deadline, unless one that is early enough is under way. The caller holds d.net.mu.
func (d *deadline) arm() {
	if d.at.IsZero() || d.expired() {
		return
	}
	at := d.at.Sub(d.net.began)
	if d.event != 0 && d.event <= at {
		return
	}
	d.event = at
	d.net.After(time.Until(d.at), func() {
		if d.event == at {
			d.event = 0
			d.arm()
		}
		d.cond.Broadcast()
	})
}
