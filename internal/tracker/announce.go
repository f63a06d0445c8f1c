package tracker

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
)

// privatePatience is how long a private torrent, which may be at one tracker only, waits for a silent tracker
// if there is another to go to.
const privatePatience = time.Minute

// event is the reason for an announce, numbered as in BEP 15.
type event uint32

const (
	eventNone event = iota
	eventCompleted
	eventStarted
	eventStopped
)

func (e event) String() string {
	return [...]string{"", "completed", "started", "stopped"}[e]
}

// request is what a tracker is told.
type request struct {
	infoHash [20]byte
	peerID   [20]byte
	key      uint32
	port     uint16
	Progress
	event     event
	numWant   int
	trackerID string // of its last answer
}

// answer is what a tracker says, once checked: durations are not negative, numbers fit an int32, there are
// at most maxPeersSaid peers, and each of them could be dialled.
type answer struct {
	peers                 []netip.AddrPort
	named                 []namedPeer   // whose addresses are to be looked up
	local                 bool          // the tracker is inside our network
	interval, minInterval time.Duration // 0 if unsaid
	swarm                 Scrape
	warning               string
	trackerID             string
	addr                  netip.AddrPort // UDP: where the answer came from
}

// route is one way to a tracker. Over a family of addresses it sees, and names, only peers of that
// family, so a tracker that has both is announced to over both (BEP 7).
type route struct {
	family netaddr.Family
	addrs  []netip.AddrPort // UDP: its addresses of that family, to be tried in turn
}

// ask begins an announce to tr. The caller holds t.mu.
func (t *Announcer) ask(ctx context.Context, tr *tracker, now time.Time) {
	// An address family that has not answered since the last announce is asked again from the start.
	previous := tr.done
	if tr.cancel != nil {
		tr.cancel(nil)
	}
	done := make(chan struct{})
	announce, cancel := context.WithCancelCause(ctx)
	tr.asking, tr.askedAt, tr.done, tr.cancel = true, now, done, cancel
	alone := !t.c.Private || t.usable() == 1
	t.asking.Go(func() {
		defer close(done)
		defer cancel(nil)
		if previous != nil {
			<-previous
		}
		if !alone {
			patience := time.AfterFunc(privatePatience, func() { cancel(errSilent) })
			defer patience.Stop()
		}
		if err := t.announce(announce, cancel, tr); err != nil {
			t.failed(ctx, tr, err)
		}
	})
}

// usable returns how many trackers are not final. The caller holds t.mu.
func (t *Announcer) usable() (n int) {
	for tr := range t.all() {
		if !tr.final {
			n++
		}
	}
	return n
}

// announce announces to tr over each of its routes, and records each answer as it comes. The error is why
// there was none.
func (t *Announcer) announce(ctx context.Context, cancel context.CancelCauseFunc, tr *tracker) error {
	routes, err := t.routes(ctx, tr)
	if err != nil {
		return err
	}
	errs := make([]error, len(routes))
	var under sync.WaitGroup
	for i, r := range routes {
		under.Go(func() {
			req := t.request(tr, r.family)
			a, err := t.exchange(ctx, tr, r, req)
			if err == nil {
				a.dropInward()
				t.answered(tr, r.family, req.event, a)
				t.lookUpNamed(ctx, tr, a)
				return
			}
			errs[i] = err
			if len(routes) > 1 {
				// The other family may be a black hole, and what this one heard should be known before that is over.
				timer := time.AfterFunc(tierPatience, func() { t.giveUp(tr, cancel) })
				context.AfterFunc(ctx, func() { timer.Stop() })
			}
		})
	}
	under.Wait()
	return mostTelling(errs)
}

// giveUp ends the announce to tr unless it has been answered.
func (t *Announcer) giveUp(tr *tracker, cancel context.CancelCauseFunc) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if tr.asking {
		cancel(errSilent)
	}
}

// routes returns the ways to tr that its name and our sockets allow.
func (t *Announcer) routes(ctx context.Context, tr *tracker) ([]route, error) {
	if tr.u.Scheme != "udp" {
		return httpRoutes(t.c.HTTP, tr.u), nil
	}
	addrs, err := t.c.UDP.resolve(ctx, tr.u)
	if err != nil {
		return nil, err
	}
	var routes []route
	for _, a := range addrs {
		f := netaddr.FamilyOf(a.Addr())
		i := slices.IndexFunc(routes, func(r route) bool { return r.family == f })
		if i < 0 {
			i, routes = len(routes), append(routes, route{family: f})
		}
		routes[i].addrs = append(routes[i].addrs, a)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range routes {
		if i := slices.Index(r.addrs, tr.joined[r.family].addr); i > 0 {
			r.addrs[0], r.addrs[i] = r.addrs[i], r.addrs[0]
		}
	}
	return routes, nil
}

// request returns what to tell tr over a family of addresses at this moment.
func (t *Announcer) request(tr *tracker, f netaddr.Family) request {
	r := request{
		infoHash: t.c.InfoHash, peerID: t.c.PeerID, key: t.c.Key,
		port: t.c.Port(), Progress: t.c.Progress(), numWant: 200,
	}
	if r.port == 0 {
		// Trackers refuse port 0. Port 1 is what clients that cannot be connected to say.
		r.port = 1
	}
	if r.Left < 0 {
		// Any number but 0, which would mean that we are a seed.
		r.Left = 16 << 10
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	joined := tr.joined[f]
	r.trackerID = joined.id
	if !joined.started {
		r.event = eventStarted
	} else if t.completed && !joined.completed {
		r.event = eventCompleted
	}
	return r
}

func (t *Announcer) exchange(ctx context.Context, tr *tracker, r route, req request) (answer, error) {
	if tr.u.Scheme == "udp" {
		return t.c.UDP.announce(ctx, tr.u, r, req)
	}
	return t.announceHTTP(ctx, tr.u, r.family, tr.byUser.Load(), req)
}

// Stop announces `stopped` to every tracker that knows of us, to all at once, until they have answered or
// ctx ends; those that do not know yet that the download completed are told so first. Call it after Run
// has returned. A later Run begins with `started` again.
func (t *Announcer) Stop(ctx context.Context) {
	var told sync.WaitGroup
	t.mu.Lock()
	for tr := range t.all() {
		for f := range netaddr.Families {
			if joined := tr.joined[f]; joined.started {
				told.Go(func() { t.stop(ctx, tr, route{f, []netip.AddrPort{joined.addr}}) })
			}
		}
	}
	t.mu.Unlock()
	told.Wait()

	t.mu.Lock()
	defer t.mu.Unlock()
	for tr := range t.all() {
		tr.next = time.Time{}
		for f := range tr.joined {
			tr.joined[f].started = false
		}
	}
}

// stop announces `stopped` to one tracker.
func (t *Announcer) stop(ctx context.Context, tr *tracker, r route) {
	req := t.request(tr, r.family)
	req.numWant = 0
	say := func(e event) {
		req.event = e
		_, err := t.exchange(ctx, tr, r, req)
		t.c.Log.Debug("announced", "tracker", tr.url, "event", e, "err", err)
	}
	if req.event == eventCompleted {
		say(eventCompleted)
	}
	say(eventStopped)
}

// dropInward leaves out the peers inside our network, unless the tracker is there too: it cannot have seen them.
func (a *answer) dropInward() {
	if !a.local {
		a.peers = slices.DeleteFunc(a.peers, func(p netip.AddrPort) bool { return netaddr.IsLocal(p.Addr()) })
	}
}

// compactPeers appends the peers of a compact list (BEP 23, BEP 7) to peers: addresses of size bytes,
// 4 or 16, with their ports.
func compactPeers(peers []netip.AddrPort, p []byte, size int) []netip.AddrPort {
	for a := range netaddr.Compact(p, size) {
		if a = netaddr.Unmap(a); netaddr.Dialable(a) && len(peers) < maxPeersSaid {
			peers = append(peers, a)
		}
	}
	return peers
}
