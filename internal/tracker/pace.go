package tracker

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// The torrents of a client may all list one host that need not be a tracker, as may names and redirects that lead to it. So
// announces of all torrents are paced by address, until an announce to that was answered. A tracker that is new to a client of a
// thousand torrents is asked by the first paceBurst of them, and, once it has answered one, by the others as places allow. Dead
// trackers delay no others: each announce waits for itself. Trackers that the user named are not paced.
const (
	paceBurst = 50                     // announces to an address at once
	paceEvery = 100 * time.Millisecond // between further ones
	paceAhead = 10 * time.Second       // how long before its turn an announce takes it: turns that are given back are lost
	maxPaced  = 4096                   // addresses that are remembered
)

// A Pace spreads the announces to addresses that may not be those of trackers, and those to one host. It is shared by all
// downloads of a client.
type Pace struct {
	places   places
	underWay underWay

	mu    sync.Mutex
	addrs map[netip.Addr]*pacedAddr
}

type pacedAddr struct {
	turns    *rate.Limiter
	answered chan struct{} // closed once an announce was answered
}

// NewPace returns a Pace for a client.
func NewPace() *Pace {
	return &Pace{places: places{at: make(map[placesKey]*placesAt)}, addrs: make(map[netip.Addr]*pacedAddr)}
}

// at returns what is known of an address.
func (p *Pace) at(addr netip.Addr) *pacedAddr {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.addrs[addr]
	if a == nil {
		for old := range p.addrs { // any of them
			if len(p.addrs) < maxPaced {
				break
			}
			delete(p.addrs, old)
		}
		a = &pacedAddr{rate.NewLimiter(rate.Every(paceEvery), paceBurst), make(chan struct{})}
		p.addrs[addr] = a
	}
	return a
}

// wait waits until an address may be asked, or returns why ctx ended before.
func (p *Pace) wait(ctx context.Context, addr netip.Addr) error {
	a := p.at(addr)
	select {
	case <-a.answered:
		return nil
	default:
	}
	for {
		turn, took := p.reserve(ctx, a)
		pause := paceAhead
		if took {
			if pause = turn.Delay(); pause == 0 {
				return nil
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
			if took {
				return nil
			}
		case <-a.answered:
			timer.Stop()
			return nil
		case <-ctx.Done():
			timer.Stop()
			if took {
				turn.Cancel()
			}
			return context.Cause(ctx)
		}
	}
}

// reserve takes the next turn at an address, unless that comes later than paceAhead or after the deadline of ctx. A turn that is
// given back later is lost: torrents that try a dead tracker again and again would take all turns for a long time, and so would
// announces that are cancelled when the network has changed.
func (p *Pace) reserve(ctx context.Context, a *pacedAddr) (turn *rate.Reservation, took bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	turn = a.turns.Reserve()
	wait := paceAhead
	if end, ends := ctx.Deadline(); ends {
		wait = min(wait, time.Until(end))
	}
	if turn.Delay() > wait {
		turn.Cancel() // whole, because no later turn is taken
		return nil, false
	}
	return turn, true
}

// heard records that an announce to an address was answered as by a tracker.
func (p *Pace) heard(addr netip.Addr) {
	a := p.at(addr)
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-a.answered:
	default:
		close(a.answered)
	}
}
