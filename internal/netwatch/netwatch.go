// Package netwatch detects that a machine has slept or that its addresses have changed, from regular looks at its
// clocks and addresses, and decides when to act on that.
//
// It is plain data, for one goroutine.
package netwatch

import (
	"net/netip"
	"slices"
	"time"
)

const (
	// Every is how often to look. A machine that was not looked at for much longer slept.
	Every = 5 * time.Second
	// asleep is how much later than that a look, or how far ahead of one clock the other, has to be.
	asleep = 30 * time.Second
	// settles is how long addresses have to stay as they are before others are told: routes and names come after them.
	settles = 3 * time.Second
	// again is how long after the first attempt failed ones are repeated, in case they came too early.
	again = 20 * time.Second
)

// A Change is what is new since the last look.
type Change struct {
	Slept      time.Duration // how long the machine slept, at least; 0 if it did not
	Gone, Come []netip.Addr  // addresses
	Settled    bool          // the network has settled after an earlier change or sleep: tell others now
	Again      bool          // attempts that failed since then may be repeated
}

// Any reports whether there is anything to do.
func (c *Change) Any() bool {
	return c.Slept > 0 || len(c.Gone)+len(c.Come) > 0 || c.Settled || c.Again
}

// A Watch remembers the last look. The zero value has seen nothing.
type Watch struct {
	seen    time.Time // by the clock that timers go by; zero before the first look
	wall    time.Time // by the clock on the wall
	addrs   []netip.Addr
	settle  time.Time // when a change is to be told; zero if there is none
	recheck time.Time
}

// Look takes the time by the clock that timers go by, which may stand still while the machine sleeps, the time on the wall
// and the addresses of the machine.
func (w *Watch) Look(now, wall time.Time, addrs []netip.Addr) (c Change) {
	usable := make([]netip.Addr, 0, len(addrs))
	for _, a := range addrs {
		if a = a.Unmap(); a.IsValid() && !a.IsLinkLocalUnicast() && !slices.Contains(usable, a) {
			usable = append(usable, a)
		}
	}
	slices.SortFunc(usable, netip.Addr.Compare)
	before := w.addrs
	first := w.seen.IsZero()
	passed, byWall := now.Sub(w.seen), wall.Round(0).Sub(w.wall)
	w.seen, w.wall, w.addrs = now, wall.Round(0), usable
	if first {
		return c
	}
	if slept := max(passed, byWall) - Every; slept >= asleep {
		c.Slept = slept
	}
	c.Gone = without(before, usable)
	c.Come = without(usable, before)
	if c.Any() {
		w.settle, w.recheck = now.Add(settles), now.Add(again)
		return c
	}
	if !w.settle.IsZero() && !now.Before(w.settle) {
		c.Settled, w.settle = true, time.Time{}
	}
	if !w.recheck.IsZero() && !now.Before(w.recheck) {
		c.Again, w.recheck = true, time.Time{}
	}
	return c
}

// Next is when to look next, given how often that is to be at least.
func (w *Watch) Next(now time.Time, every time.Duration) time.Time {
	next := now.Add(every)
	for _, at := range []time.Time{w.settle, w.recheck} {
		if !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	return next
}

// without returns the elements of a that are not in b.
func without(a, b []netip.Addr) (rest []netip.Addr) {
	for _, x := range a {
		if !slices.Contains(b, x) {
			rest = append(rest, x)
		}
	}
	return rest
}
