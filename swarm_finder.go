package torrent

import (
	"context"
	"time"

	"github.com/shoal-go/torrent/internal/peerlist"
)

const (
	// findEvery is how often the user's own function is asked again, and findHungry how often while the owner is
	// hungry.
	findEvery  = 15 * time.Minute
	findHungry = time.Minute
)

// runFind asks the user's own function until ctx ends.
func (f *discovery) runFind(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for asked := (time.Time{}); ; {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-f.hunger.wake:
		}
		due := asked.Add(findEvery)
		if f.hungry() {
			due = asked.Add(findHungry)
		}
		if wait := time.Until(due); !asked.IsZero() && wait > 0 {
			timer.Reset(wait)
			continue
		}
		asked = time.Now()
		for _, h := range f.hashes.all() {
			peers := f.find(ctx, h)
			if peers == nil {
				continue
			}
			for a := range peers {
				f.foundIn(h, peerlist.FromFinder, "", a)
				if ctx.Err() != nil {
					return
				}
			}
		}
		f.hunger.signal() // to compute when it is asked again
	}
}
