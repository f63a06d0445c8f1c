// Package tracker announces downloads to trackers over HTTP and UDP (BEP 3, 7, 12, 15, 27, 48).
//
// An Announcer serves one download. It owns the state of the download's trackers and the schedule of the announces. Run is its
// one long-lived goroutine. Every other method may be called from any goroutine, but Stop only after Run has returned. A UDP and a Pace
// serve all announcers of a client, the UDP through sockets that it does not own. All times are those of package time, so that
// everything runs in a testing/synctest bubble.
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
	maxTrackers  = 200              // of one download
	usersRoom    = 50               // trackers that the user may have even if there are maxTrackers already
	maxPeersSaid = 1000             // peers in one answer; others are left out
	maxPeersSeen = 5 * maxPeersSaid // entries of a list of peers that are parsed
)

// Config is the configuration of an Announcer. Callbacks are called without a lock held, and must not block for long.
type Config struct {
	Tiers     [][]string // tracker URLs of the torrent or link, tier by tier (BEP 12)
	UserTiers [][]string // tracker URLs that the user named; requests to these may go to any host and path
	InfoHash  [20]byte
	PeerID    [20]byte
	Key       uint32 // identifies this client to trackers if its address changes (BEP 7)
	Private   bool
	HTTP      *http.Client     // never nil; NewHTTPClient makes one that announces over IPv4 and IPv6
	UDP       *UDP             // shared by all downloads of a client
	Pace      *Pace            // shared likewise; never nil
	Account   *account.Account // of the client; long answers are charged to it; never nil

	// Lookup returns the addresses of a host. It is called for peers for which a tracker gives a host name. If nil, such
	// peers are left out.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

	Port     func() uint16                            // returns the port that we listen on, or 0
	Progress func() Progress                          // returns the progress to announce
	Found    func(url string, peers []netip.AddrPort) // called with the peers of an answer; each of them can be dialled
	Heard    func(Status)                             // called after an announce was answered or failed; may be nil
	Hungry   func() bool                              // reports whether the download wants peers, and none is connected that sends much
	Dropped  func(oldURL string)                      // private: another tracker took over; the peers of the old one are to be dropped
	Rand     *rand.Rand
	Log      *slog.Logger // never nil
}

// Progress is the state of a download that is announced, in bytes.
type Progress struct {
	Uploaded, Downloaded int64
	Left                 int64 // not yet verified; -1 while the length is unknown
	PartialSeed          bool  // some of the content is missing and none of that is wanted (BEP 21)
}

// An Announcer announces one download to its trackers while Run runs.
//
// It announces to every tier, in each to the first tracker that answers. In real lists, the tiers are unrelated trackers, each
// of which knows another part of the swarm, so using only the first tier would miss peers. If the download is hungry and a
// tracker is silent, or returns no peers or none that sends much, the next tracker of the tier is asked too, a second later. A
// private torrent is at one tracker at a time (BEP 27). If it is hungry there for long, it goes to another one that answers.
type Announcer struct {
	c      Config
	woken  chan struct{}  // of capacity 1; full when Run has to look at the schedule again
	asking sync.WaitGroup // announces under way

	mu        sync.Mutex
	tiers     [][]*tracker        // each in the order in which it is tried
	known     map[string]*tracker // all trackers by URL
	byUser    int                 // how many of them were added for the user
	current   *tracker            // private: the tracker that we are at; nil until one has answered
	hungry    time.Time           // private: since when the download is hungry there; zero if it is not
	completed bool                // Complete was called
	hosts     hosts               // those asked recently

	lookups      int       // lookups of peers with host names since lookupsSince
	lookupsSince time.Time // start of the minute for which lookups are counted
}

// tracker is the state of one tracker. Announcer.mu guards the fields after byUser.
type tracker struct {
	url  string
	u    *url.URL // nil if url is malformed; the tracker is final then
	tier int

	byUser atomic.Bool // the user named it

	// Schedule
	asking   bool      // an announce is under way and no address family has answered it
	askedAt  time.Time // zero if never
	next     time.Time // when the tracker is due
	soonest  time.Time // when `min interval` allows the next announce; due then if the download is hungry or Announce is called
	sooner   bool      // Announce was called while an announce was under way, which may have sent outdated numbers
	failures int       // since the last answer
	slow     bool      // the last announce failed after a long wait
	final    bool      // the tracker is never asked again

	// Last announce
	answered bool // the tracker has answered at least once
	err      *Error
	warning  string
	peers    int
	swarm    Scrape

	joined [netaddr.Families]registration
	cancel context.CancelCauseFunc // cancels the last announce
	done   chan struct{}           // closed when the last announce has ended
}

// registration is what a tracker has acknowledged over one address family.
type registration struct {
	started   bool
	completed bool
	tried     bool           // an announce of `completed` has begun; if it fails, the next one that is due repeats it
	id        string         // the tracker's `tracker id`, to be sent with the next announce
	addr      netip.AddrPort // UDP: where the answer came from
}

// working reports whether the last announce was answered.
func (tr *tracker) working() bool { return tr.err == nil && tr.answered }

// hasNews reports whether `completed` is due to a tracker that works. It is not due again while one address family has answered it
// and another has not: that may be slow, and asking again would cancel its announce.
func (tr *tracker) hasNews(completed bool) bool {
	return completed && tr.working() && slices.ContainsFunc(tr.joined[:], func(r registration) bool {
		return r.started && !r.completed && !r.tried
	})
}

// New returns an Announcer. It announces nothing before Run is called.
func New(c Config) *Announcer {
	t := &Announcer{c: c, woken: make(chan struct{}, 1), known: make(map[string]*tracker), hosts: make(hosts)}
	for _, urls := range c.Tiers {
		t.addTier(urls, false)
	}
	for _, urls := range c.UserTiers {
		t.addTier(urls, true)
	}
	return t
}

// addTier adds the trackers of a tier that are not known yet, in random order (BEP 12). The caller holds t.mu.
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

// Add adds trackers that the user named, each in a tier of its own. It ignores those that are known already. Once there are
// maxTrackers, it adds further ones only until usersRoom are the user's.
func (t *Announcer) Add(urls ...string) {
	t.mu.Lock()
	for _, s := range urls {
		t.addTier([]string{s}, true)
	}
	t.mu.Unlock()
	t.Wake()
}

// Announce makes every tracker due as soon as it allows: one that answered after its `min interval`, one that failed
// 15 seconds after the failed announce began.
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

// Moved makes every tracker due now, whatever its intervals. Call it when the address of this machine has changed or the
// machine has slept, so that the trackers have wrong information. No tracker is asked twice within 15 seconds. Announces under
// way are cancelled and retried, because their answers may go to an address that we no longer have.
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

// oneByOne returns every tracker in the order in which a private torrent tries them. The current one comes first while it
// works, whatever its tier. Those that failed slowly come last, so that retries of these do not keep others from being tried.
// If the current one is to be left, those asked the longest ago come first. The caller holds t.mu.
func (t *Announcer) oneByOne(leaves bool) []*tracker {
	order := slices.Concat(t.tiers...)
	if leaves {
		slices.SortStableFunc(order, func(a, b *tracker) int { return a.askedAt.Compare(b.askedAt) })
		return order
	}
	slices.SortStableFunc(order, func(a, b *tracker) int { return a.slowSince().Compare(b.slowSince()) })
	if i := slices.Index(order, t.current); i > 0 && t.current.working() {
		order = slices.Insert(slices.Delete(order, i, i+1), 0, t.current)
	}
	return order
}

// slowSince returns when an announce began that failed after a long wait, or zero if the last one did not.
func (tr *tracker) slowSince() (at time.Time) {
	if tr.slow {
		at = tr.askedAt
	}
	return at
}

// Complete announces `completed`, once, to each tracker that has answered `started`. Call it only if the download completed in
// this client.
func (t *Announcer) Complete() {
	t.mu.Lock()
	t.completed = true
	t.mu.Unlock()
	t.Wake()
}

// Wake makes Run evaluate the schedule again. Call it when the callbacks would return other values. It never blocks.
func (t *Announcer) Wake() {
	select {
	case t.woken <- struct{}{}:
	default:
	}
}
