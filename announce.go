package torrent

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"github.com/shoal-go/torrent/internal/netaddr"
)

// announceEvent is what an announce is made for, numbered as BEP 15 does.
type announceEvent uint32

const (
	eventNone announceEvent = iota
	eventCompleted
	eventStarted
	eventStopped
)

func (e announceEvent) String() string {
	return [...]string{"", "completed", "started", "stopped"}[e]
}

// announceRequest is what a tracker is told.
type announceRequest struct {
	infoHash Hash
	peerID   [20]byte
	key      uint32
	port     uint16
	announceProgress
	event     announceEvent
	numWant   int
	trackerID string // of its last answer
}

// announceAnswer is what a tracker says, made safe: durations are not negative, numbers fit an int32,
// there are at most maxPeersSaid peers, and each of them could be dialled.
type announceAnswer struct {
	peers                 []netip.AddrPort
	interval, minInterval time.Duration // 0 if unsaid
	swarm                 Scrape
	warning               string
	trackerID             string
	addr                  netip.AddrPort // UDP: where the answer came from
}

// A refusal is a failure that the tracker itself declares.
type refusal struct {
	reason string
	retry  time.Duration // when it may be asked again (BEP 31); 0 if unsaid
	final  bool          // it need not be asked again
}

func (r *refusal) Error() string { return r.reason }

// route is one way to a tracker. Over a family of addresses it sees, and names, only peers of that
// family, so a tracker that has both is announced to over both (BEP 7).
type route struct {
	family netaddr.Family
	addrs  []netip.AddrPort // UDP: its addresses of that family, to be tried in turn
}

// ask begins an announce to tr. The caller holds t.mu.
func (t *trackers) ask(ctx context.Context, tr *tracker, now time.Time) {
	// An address family that has not answered since the last announce is asked afresh.
	previous := tr.done
	if tr.cancel != nil {
		tr.cancel(nil)
	}
	done := make(chan struct{})
	announce, cancel := context.WithCancelCause(ctx)
	tr.asking, tr.askedAt, tr.done, tr.cancel = true, now, done, cancel
	alone := !t.c.private || t.usable() == 1
	t.asked.Go(func() {
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

// usable counts the trackers that are not given up for good. The caller holds t.mu.
func (t *trackers) usable() (n int) {
	for tr := range t.all() {
		if !tr.final {
			n++
		}
	}
	return n
}

// announce tells tr over each of its routes, and records each answer as it comes. The error is why
// there was none.
func (t *trackers) announce(ctx context.Context, cancel context.CancelCauseFunc, tr *tracker) error {
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
				t.answered(tr, r.family, req.event, a)
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
	if slices.Contains(errs, nil) {
		return nil
	}
	// What the tracker said tells more than that a machine has no IPv6.
	for _, err := range errs {
		if _, ok := errors.AsType[*refusal](err); ok {
			return err
		}
	}
	for _, err := range errs {
		if !isUnreachable(err) {
			return err
		}
	}
	return errs[0]
}

// giveUp ends the announce to tr unless it has been answered.
func (t *trackers) giveUp(tr *tracker, cancel context.CancelCauseFunc) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if tr.asking {
		cancel(errSilent)
	}
}

// routes are the ways to tr that its name, and our means, allow.
func (t *trackers) routes(ctx context.Context, tr *tracker) ([]route, error) {
	if tr.u.Scheme != "udp" {
		return httpRoutes(t.c.http, tr.u), nil
	}
	addrs, err := t.c.udp.resolve(ctx, tr.u)
	if err != nil {
		return nil, err
	}
	var routes []route
	for _, a := range addrs {
		i := slices.IndexFunc(routes, func(r route) bool { return r.family == netaddr.FamilyOf(a.Addr()) })
		if i < 0 {
			i, routes = len(routes), append(routes, route{family: netaddr.FamilyOf(a.Addr())})
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

// request is what tr is to be told over a family of addresses, as things stand.
func (t *trackers) request(tr *tracker, f netaddr.Family) announceRequest {
	r := announceRequest{
		infoHash: t.c.infoHash, peerID: t.c.peerID, key: t.c.key,
		port: t.c.port(), announceProgress: t.c.progress(), numWant: 200,
	}
	if r.port == 0 {
		// Trackers refuse port 0. Port 1 is what clients that cannot be connected to say.
		r.port = 1
	}
	if r.left < 0 {
		// Anything but 0, which would say that we are a seed.
		r.left = blockSize
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

func (t *trackers) exchange(ctx context.Context, tr *tracker, r route, req announceRequest) (announceAnswer, error) {
	if tr.u.Scheme == "udp" {
		return t.c.udp.announce(ctx, tr.u, r, req)
	}
	return announceHTTP(ctx, t.c.http, tr.u, r.family, req)
}

// answered records what tr said to an announce over one family of addresses.
func (t *trackers) answered(tr *tracker, f netaddr.Family, event announceEvent, a announceAnswer) {
	t.c.log.Debug("announced", "tracker", tr.url, "event", event, "peers", len(a.peers), "interval", a.interval)
	oldURL := ""
	t.mu.Lock()
	now := time.Now()
	if tr.asking {
		tr.asking, tr.peers, tr.swarm = false, 0, Scrape{}
	}
	tr.answered, tr.err, tr.failures, tr.warning = true, nil, 0, a.warning
	tr.peers += len(a.peers)
	tr.swarm = Scrape{
		Seeds:     max(tr.swarm.Seeds, a.swarm.Seeds),
		Leechers:  max(tr.swarm.Leechers, a.swarm.Leechers),
		Completed: max(tr.swarm.Completed, a.swarm.Completed),
	}

	interval := min(max(a.interval, minInterval), maxInterval)
	if a.interval == 0 {
		interval = defaultInterval
	}
	least := min(interval, hungryInterval)
	if a.minInterval > 0 {
		least = min(max(a.minInterval, minInterval), maxInterval)
	}
	tr.soonest, tr.next = now.Add(least), now.Add(max(least, interval))

	joined := &tr.joined[f]
	joined.addr = a.addr
	if a.trackerID != "" {
		joined.id = a.trackerID
	}
	switch event {
	case eventStarted:
		joined.started = true
	case eventCompleted:
		joined.completed = true
	}

	tier := t.tiers[tr.tier]
	if i := slices.Index(tier, tr); i > 0 {
		t.tiers[tr.tier] = slices.Insert(slices.Delete(tier, i, i+1), 0, tr)
	}
	if t.c.private && t.current != tr {
		if t.current != nil {
			oldURL = t.current.url
		}
		t.current = tr
	}
	t.mu.Unlock()

	if oldURL != "" {
		t.c.dropped(oldURL)
	}
	if len(a.peers) > 0 {
		t.c.found(tr.url, a.peers)
	}
	t.wake()
}

// failed records that an announce to tr was in vain. The end of run says nothing about the tracker.
func (t *trackers) failed(run context.Context, tr *tracker, err error) {
	ended := run.Err() != nil
	reason := reasonOf(err)
	if !ended {
		t.c.log.Info("announce failed", "tracker", tr.url, "reason", reason)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	tr.asking = false
	if ended {
		return
	}
	wait := min(firstRetry<<min(tr.failures, 16), lastRetry)
	tr.failures++
	if r, ok := errors.AsType[*refusal](err); ok {
		tr.final = r.final
		if r.retry > 0 {
			wait = min(max(r.retry, minInterval), maxInterval)
		}
	}
	tr.err = &TrackerError{URL: tr.url, Reason: reason, Err: err}
	tr.next = time.Now().Add(wait)
	t.wake()
}

// stop says goodbye to every tracker that knows of us, to all at once, until they have answered or
// ctx ends; those that do not know yet that the download completed are told so before. It is to be
// called after run has returned.
func (t *trackers) stop(ctx context.Context) {
	var told sync.WaitGroup
	defer told.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	for tr := range t.all() {
		for f := range netaddr.Families {
			if joined := tr.joined[f]; joined.started {
				told.Go(func() {
					req := t.request(tr, f)
					req.numWant = 0
					say := func(event announceEvent) {
						req.event = event
						_, err := t.exchange(ctx, tr, route{f, []netip.AddrPort{joined.addr}}, req)
						t.c.log.Debug("announced", "tracker", tr.url, "event", event, "error", err)
					}
					if req.event == eventCompleted {
						say(eventCompleted)
					}
					say(eventStopped)
				})
			}
		}
	}
}

// reasonOf is an error in words for a person, without what the TrackerError around it says anyway.
func reasonOf(err error) string {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errSilent.Error()
	}
	return printable(err.Error())
}

// errSilent is a tracker's that was given all the time there is.
var errSilent = errors.New("no answer")

// isUnreachable tells of an error that comes from the lack of an address family, here or there.
func isUnreachable(err error) bool {
	if _, ok := errors.AsType[*net.AddrError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return true
	}
	return errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.EADDRNOTAVAIL)
}

// printable makes what a stranger says fit for a log or a terminal: one line, of bounded length.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s[:min(len(s), 300)])
	return strings.TrimSpace(strings.ToValidUTF8(s, ""))
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
