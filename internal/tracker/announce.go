package tracker

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
)

// privatePatience is how long a private torrent waits for the answer of a tracker if it has another one. It may be at one
// tracker at a time only (BEP 27).
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

// request holds the parameters of an announce.
type request struct {
	infoHash [20]byte
	peerID   [20]byte
	key      uint32
	port     uint16
	Progress
	event     event
	numWant   int
	trackerID string // `tracker id` of the tracker's last answer, or ""
}

// answer is the checked answer to an announce: durations are not negative, numbers fit in an int32, there are
// at most maxPeersSaid peers, and each of them can be dialled.
type answer struct {
	peers                 []netip.AddrPort
	named                 []namedPeer   // peers given by host name, not looked up yet
	local                 bool          // the tracker is inside our network
	interval, minInterval time.Duration // 0 if missing
	swarm                 Scrape
	warning               string
	trackerID             string
	addr                  netip.AddrPort // UDP: where the answer came from
}

// route is an address family over which a tracker is announced to. Over one family, a tracker sees and returns only peers of
// that family, so a tracker with addresses of both is announced to over both (BEP 7).
type route struct {
	family netaddr.Family
	addrs  []netip.AddrPort // UDP: the tracker's addresses of that family, to be tried in turn
}

// ask starts an announce to tr. The caller holds t.mu.
func (t *Announcer) ask(ctx context.Context, tr *tracker, now time.Time) {
	// The last announce may still wait for an answer over one address family. It is cancelled.
	previous := tr.done
	if tr.cancel != nil {
		tr.cancel(nil)
	}
	done := make(chan struct{})
	announce, cancel := context.WithCancelCause(ctx)
	tr.asking, tr.askedAt, tr.done, tr.cancel = true, now, done, cancel
	for f := range tr.joined {
		tr.joined[f].tried = t.completed && tr.joined[f].started
	}
	alone := !t.c.Private || t.usable() == 1
	leave := func() {}
	if tr.u.Scheme == "udp" {
		leave = t.c.Pace.underWay.enter(now, cancel)
	}
	t.asking.Go(func() {
		defer close(done)
		defer leave()
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

// usable returns the number of trackers that are not final. The caller holds t.mu.
func (t *Announcer) usable() (n int) {
	for tr := range t.all() {
		if !tr.final {
			n++
		}
	}
	return n
}

// announce announces to tr over each of its routes, and records each answer when it arrives. If no route had an answer,
// it returns the error that says most about the tracker.
func (t *Announcer) announce(ctx context.Context, cancel context.CancelCauseFunc, tr *tracker) error {
	routes, err := t.routes(ctx, tr)
	if err != nil {
		return err
	}
	errs := make([]error, len(routes))
	var under, queued sync.WaitGroup
	queued.Add(len(routes))
	for i, r := range routes {
		run := under.Go
		if i == len(routes)-1 {
			run = func(f func()) { f() } // there may be thousands of announces, and each goroutine takes memory
		}
		run(func() {
			leave, err := t.c.Pace.places.take(ctx, tr.u, r.family, false)
			queued.Done()
			if err != nil {
				errs[i] = err
				return
			}
			req := t.request(tr, r.family)
			a, err := t.exchange(ctx, tr, r, req)
			leave()
			if err == nil {
				a.dropInward()
				t.answered(tr, r.family, req.event, a)
				t.lookUpNamed(ctx, tr, a)
				return
			}
			errs[i] = err
			if len(routes) > 1 && (tr.u.Scheme == "udp" || !isUnreachable(err)) {
				// The other family may be a black hole. Do not delay the error of this one until that times out. Over HTTP
				// that is soon, so if there is no such family here or there, the other one may take its time.
				queued.Wait()
				timer := time.AfterFunc(tierPatience, func() { t.giveUp(tr, cancel) })
				context.AfterFunc(ctx, func() { timer.Stop() })
			}
		})
	}
	under.Wait()
	return mostTelling(errs)
}

// giveUp cancels the announce to tr unless it has been answered.
func (t *Announcer) giveUp(tr *tracker, cancel context.CancelCauseFunc) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if tr.asking {
		cancel(errSilent)
	}
}

// routes returns the routes to tr. For UDP, it looks up the host, and puts first the address that answered last.
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

// request returns the announce to send to tr over a family now.
func (t *Announcer) request(tr *tracker, f netaddr.Family) request {
	r := request{
		infoHash: t.c.InfoHash, peerID: t.c.PeerID, key: t.c.Key,
		port: t.c.Port(), Progress: t.c.Progress(), numWant: 200,
	}
	if r.port == 0 {
		// Trackers refuse port 0. Clients that do not listen send port 1.
		r.port = 1
	}
	if r.Left < 0 {
		// Any number but 0, which means that we are a seed.
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
		pace := t.c.Pace
		if tr.byUser.Load() {
			pace = nil
		}
		a, err := t.c.UDP.announce(ctx, tr.u, r, req, pace)
		if err == nil {
			t.c.Pace.heard(a.addr.Addr())
		}
		return a, err
	}
	return t.announceHTTP(ctx, tr.u, r.family, tr.byUser.Load(), req)
}

// Stop announces `stopped` to every tracker that answered `started`, to all at once. It returns when all have answered or ctx
// ends. A tracker that has not answered `completed` yet is sent that first. Call Stop after Run has returned. A later Run
// begins with `started` again.
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
		tr.next, tr.soonest = time.Time{}, time.Time{}
		for f := range tr.joined {
			tr.joined[f].started, tr.joined[f].tried = false, false
		}
	}
}

// stop announces `stopped` to one tracker, after `completed` if that is due.
func (t *Announcer) stop(ctx context.Context, tr *tracker, r route) {
	leave, err := t.c.Pace.places.take(ctx, tr.u, r.family, true)
	if err != nil {
		return
	}
	defer leave()
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

// dropInward removes the peers inside our network, unless the tracker is inside it too. A tracker outside cannot have seen
// their addresses.
func (a *answer) dropInward() {
	if !a.local {
		a.peers = slices.DeleteFunc(a.peers, func(p netip.AddrPort) bool { return netaddr.IsLocal(p.Addr()) })
	}
}

// compactPeers appends the peers in a compact list (BEP 7, 23) to peers, up to maxPeersSaid. An entry is an address of size
// bytes, 4 or 16, and a port.
func compactPeers(peers []netip.AddrPort, p []byte, size int) []netip.AddrPort {
	for a := range netaddr.Compact(p, size) {
		if a = netaddr.Unmap(a); netaddr.Dialable(a) && len(peers) < maxPeersSaid {
			peers = append(peers, a)
		}
	}
	return peers
}
