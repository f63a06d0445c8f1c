// Package tracker announces downloads to trackers over HTTP and UDP (BEP 3, 7, 12, 15, 27, 48).
//
// An Announcer serves one download. It owns what is known of the download's trackers and the schedule of
// its announces. Run is its one long-lived goroutine; every other method may be called from any
// goroutine, but Stop only after Run has returned. A UDP serves all announcers of a client, through
// sockets that it does not own. Time is that of package time, so all of it runs in a testing/synctest bubble.
package tracker

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-go/torrent/internal/account"
	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/printable"
)

const (
	maxTrackers  = 200 // of one download; a list may hold any number
	usersRoom    = 50  // trackers that the user may name however many the author does
	maxPeersSaid = 1000
	maxPeersSeen = 5 * maxPeersSaid // of a list, that are looked at
)

// Config is what the announces of one download need. No callback is called with a lock held, and none
// may block for long.
type Config struct {
	Tiers     [][]string // as the author of the torrent or link names them
	UserTiers [][]string // as the user does; these may be anywhere
	InfoHash  [20]byte
	PeerID    [20]byte
	Key       uint32 // tells a tracker that two announces from different addresses are from one client (BEP 7)
	Private   bool
	HTTP      *http.Client     // never nil; NewHTTPClient makes one that announces over IPv4 and IPv6
	UDP       *UDP             // the client's, for all UDP trackers
	Account   *account.Account // the client's, in which long answers are; never nil

	// Lookup gives the addresses of a host. It is asked for those of peers that a tracker names by a host
	// name; nil leaves them out.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

	Port     func() uint16                            // where we listen; 0 if nowhere
	Progress func() Progress                          // at the moment of an announce
	Found    func(url string, peers []netip.AddrPort) // a good answer; each of the peers could be dialled
	Heard    func(Status)                             // an answer, good or not; may be nil
	Hungry   func() bool                              // the download wants peers and has none connected
	Dropped  func(oldURL string)                      // private: another tracker took over; the peers of the old one are to go
	Rand     *rand.Rand
	Log      *slog.Logger // never nil
}

// Progress is what a tracker is told of a download, in bytes.
type Progress struct {
	Uploaded, Downloaded int64
	Left                 int64 // not yet verified; -1 while the length is unknown
	PartialSeed          bool  // some of the content is missing, and not wanted (BEP 21)
}

// An Announcer announces one download to its trackers for as long as Run lives.
//
// Each tier is served on its own, by the first of its trackers that answers: in real lists the tiers are
// unrelated trackers, each of which knows another part of the swarm, so that leaving out all but
// the first tier would leave out peers. While the download is hungry, it waits neither for a silent
// tracker nor for one that names no peers: the next tracker of the tier is asked beside it a second
// later. A private torrent is at one tracker at a time (BEP 27).
type Announcer struct {
	c      Config
	woken  chan struct{}  // of capacity 1; full when Run has to look at the schedule again
	asking sync.WaitGroup // announces under way

	mu        sync.Mutex
	tiers     [][]*tracker        // each in the order in which it is tried
	known     map[string]*tracker // them all, by URL
	byUser    int                 // how many of them the user was the first to name
	current   *tracker            // private: the one that we are at, once one has answered
	completed bool                // the download completed here

	lookups      int       // of peers that are named by host names, since then
	lookupsSince time.Time // less than a minute ago, or it counts no more
}

// tracker is the state of one tracker; Announcer.mu guards what follows byUser.
type tracker struct {
	url  string
	u    *url.URL // nil if final for being malformed
	tier int

	byUser atomic.Bool // the user named it

	// Schedule
	asking   bool      // an announce is under way and no address family has answered it
	askedAt  time.Time // zero if never
	next     time.Time // when it is due
	soonest  time.Time // the earliest that it allows, by `min interval`: then it is due if the download is hungry, or Announce is called
	sooner   bool      // Announce was called while it was asked: what it was told may be out of date
	failures int       // since the last answer
	final    bool      // it is never asked again

	// Last announce
	answered bool // it once gave a good answer
	err      *Error
	warning  string
	peers    int
	swarm    Scrape

	joined [netaddr.Families]registration
	cancel context.CancelCauseFunc // ends what is left of the last announce
	done   chan struct{}           // closed when nothing is left of it
}

// registration is what a tracker was told and has acknowledged by one address family.
type registration struct {
	started   bool
	completed bool
	id        string         // its `tracker id`, which the next announce repeats
	addr      netip.AddrPort // UDP: where the answer came from
}

// working reports whether the last announce had a good answer.
func (tr *tracker) working() bool { return tr.err == nil && tr.answered }

// hasNews reports whether an event is due to a tracker that works.
func (tr *tracker) hasNews(completed bool) bool {
	return completed && tr.working() && slices.ContainsFunc(tr.joined[:], func(r registration) bool {
		return r.started && !r.completed
	})
}

// New returns an announcer that has not announced anything yet.
func New(c Config) *Announcer {
	t := &Announcer{c: c, woken: make(chan struct{}, 1), known: make(map[string]*tracker)}
	for _, urls := range c.Tiers {
		t.addTier(urls, false)
	}
	for _, urls := range c.UserTiers {
		t.addTier(urls, true)
	}
	return t
}

// addTier adds the trackers of a tier that are not known yet, in an order drawn by lot (BEP 12). The caller holds t.mu.
func (t *Announcer) addTier(urls []string, byUser bool) {
	var tier []*tracker
	for _, s := range urls {
		if tr := t.known[s]; tr != nil && byUser {
			tr.byUser.Store(true)
		}
		if s == "" || t.known[s] != nil || len(t.known) >= maxTrackers && !(byUser && t.byUser < usersRoom) {
			continue
		}
		if byUser {
			t.byUser++
		}
		tr := &tracker{url: s, tier: len(t.tiers)}
		tr.byUser.Store(byUser)
		t.known[s] = tr
		u, err := parseURL(s)
		if err != nil {
			tr.err, tr.final = &Error{URL: s, Reason: err.Error(), Err: err}, true
		} else {
			tr.u = u
		}
		tier = append(tier, tr)
	}
	if tier != nil {
		t.c.Rand.Shuffle(len(tier), func(i, j int) { tier[i], tier[j] = tier[j], tier[i] })
		t.tiers = append(t.tiers, tier)
	}
}

// Add adds trackers that the user names, each in a tier of its own. Those that are known are left as they are, and so are all once there
// are 200, of which 50 are the user's.
func (t *Announcer) Add(urls ...string) {
	t.mu.Lock()
	for _, s := range urls {
		t.addTier([]string{s}, true)
	}
	t.mu.Unlock()
	t.Wake()
}

// Announce has the trackers announced to as soon as they allow: one that answered after its `min interval`, one that
// failed after the first retry.
func (t *Announcer) Announce() {
	t.mu.Lock()
	for tr := range t.all() {
		tr.sooner = tr.asking
		if soonest := tr.soonest; tr.working() && soonest.Before(tr.next) {
			tr.next = soonest
		} else if soonest := tr.askedAt.Add(firstRetry); !tr.working() && soonest.Before(tr.next) {
			tr.next = soonest
		}
	}
	t.mu.Unlock()
	t.Wake()
}

// Moved has the trackers announced to now, whatever they said of intervals, because this machine has another address or has
// slept: what they know of us is wrong. None is asked twice in a quarter of a minute. What is under way begins again, as
// it may wait for an answer to an address that is no more.
func (t *Announcer) Moved() {
	t.mu.Lock()
	now := time.Now()
	for tr := range t.all() {
		if tr.askedAt.IsZero() || tr.final {
			continue
		}
		if tr.failures = 0; tr.asking {
			tr.cancel(errMoved)
			continue
		}
		tr.next = tr.askedAt.Add(firstRetry)
		if tr.next.Before(now) {
			tr.next = now
		}
		tr.soonest = tr.next
	}
	t.mu.Unlock()
	t.Wake()
}

var errMoved = errors.New("the network has changed")

func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("malformed URL")
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "udp":
		return nil, fmt.Errorf("scheme %q is not supported", printable.Line(u.Scheme))
	case u.Hostname() == "":
		return nil, errors.New("URL without a host")
	case u.Scheme == "udp" && u.Port() == "":
		return nil, errors.New("URL without a port")
	}
	return u, nil
}

// all yields every tracker, tier by tier. The caller holds t.mu.
func (t *Announcer) all() iter.Seq[*tracker] {
	return func(yield func(*tracker) bool) {
		for _, tier := range t.tiers {
			for _, tr := range tier {
				if !yield(tr) {
					return
				}
			}
		}
	}
}

// oneByOne returns every tracker in the order in which a private torrent tries them: the current one comes
// first as long as it works, whatever its tier. The caller holds t.mu.
func (t *Announcer) oneByOne() []*tracker {
	order := slices.Concat(t.tiers...)
	if i := slices.Index(order, t.current); i > 0 && t.current.working() {
		order = slices.Insert(slices.Delete(order, i, i+1), 0, t.current)
	}
	return order
}

// Complete has `completed` announced, once to each tracker that knows of us. Call it only if the
// download completed here.
func (t *Announcer) Complete() {
	t.mu.Lock()
	t.completed = true
	t.mu.Unlock()
	t.Wake()
}

// Wake has Run look at the schedule again, because the callbacks would return something else now. It never
// waits.
func (t *Announcer) Wake() {
	select {
	case t.woken <- struct{}{}:
	default:
	}
}
