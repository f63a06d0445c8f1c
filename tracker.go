package torrent

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
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
)

const (
	// hungryPatience is how long a download without peers waits for a tracker, or for the peers that
	// one named, before it asks the next of the tier beside it.
	hungryPatience = time.Second
	// tierPatience is the same while there are peers: as long as BEP 15 waits before it repeats itself.
	tierPatience = 15 * time.Second
	// privatePatience ends the attempt at a silent tracker of a private torrent, which may be at one
	// tracker only, where there is another to go to.
	privatePatience = time.Minute

	minInterval     = time.Minute
	maxInterval     = 24 * time.Hour
	defaultInterval = 30 * time.Minute
	// hungryInterval stands in for a `min interval` that was not said, where the interval is longer.
	hungryInterval = 5 * time.Minute

	firstRetry = 15 * time.Second
	lastRetry  = 30 * time.Minute

	maxTrackers  = 200 // of one download; a list may hold any number
	askedAtOnce  = 10  // trackers that have been asked and are still within the patience
	maxPeersSaid = 1000
)

// TrackerStats is what is known of one tracker.
type TrackerStats struct {
	URL  string
	Tier int // from 0 (BEP 12)

	Announcing   bool      // it has been asked and not yet answered
	LastAnnounce time.Time // when it was last asked; zero if never
	NextAnnounce time.Time // when it is asked again at the latest, if it is still its turn then; zero if it is not going to be

	Err       error  // a *TrackerError if the last announce failed or is waiting in vain, or nil
	Warning   string // what it said beside its last answer
	Peers     int    // addresses in its last answer
	Seeds     int    // seeds in the swarm as it last said; 0 if unsaid
	Leechers  int    // leechers in the swarm as it last said; 0 if unsaid
	Completed int    // downloads it has seen complete as it last said; 0 if unsaid
}

// trackerConfig is what the announces of one download need. No callback is called with a lock held,
// and none may block for long.
type trackerConfig struct {
	tiers    [][]string
	infoHash Hash
	peerID   [20]byte
	key      uint32 // says to a tracker that two announces from different addresses are one client's (BEP 7)
	private  bool
	http     *http.Client  // never nil; newTrackerHTTP makes one that announces over IPv4 and IPv6
	udp      *udpTransport // the client's one socket for all UDP trackers

	port     func() uint16                            // where we listen; 0 if nowhere
	progress func() announceProgress                  // at the moment of an announce
	found    func(url string, peers []netip.AddrPort) // a good answer; port 0, multicast and unspecified addresses are left out
	hungry   func() bool                              // the download wants peers and has none connected
	dropped  func(oldURL string)                      // private: another tracker took over; the peers of the old one are to go
	rng      *rand.Rand
	log      *slog.Logger // never nil
}

// announceProgress is what a tracker is told of a download, in bytes.
type announceProgress struct {
	uploaded, downloaded int64
	left                 int64 // not yet verified; -1 while the length is unknown
	partialSeed          bool  // some of the content is missing, and not wanted (BEP 21)
}

// trackers announces one download to its trackers (BEP 3, 12, 15) for as long as run lives.
//
// Each tier is served on its own, by the first of its trackers that answers: in real lists the tiers are
// unrelated trackers, each of which knows another part of the swarm, so that leaving out all but
// the first tier would leave out peers. While the download is hungry, neither silence nor an answer
// that leads to nobody is waited for: the next tracker of the tier is asked beside it a second
// later. A private torrent is at one tracker at a time (BEP 27).
type trackers struct {
	c      trackerConfig
	kicked waker          // of run, to think the schedule over
	asked  sync.WaitGroup // announces under way

	mu        sync.Mutex
	tiers     [][]*tracker // each in the order in which it is tried
	current   *tracker     // private: the one that we are at, once one has answered
	completed bool         // the download completed here
}

// tracker is the state of one tracker; trackers.mu guards all but the first three fields.
type tracker struct {
	url  string
	u    *url.URL // nil if final for being malformed
	tier int

	// Schedule
	asking   bool      // an announce is under way and no address family has answered it
	askedAt  time.Time // zero if never
	next     time.Time // not before, in the normal run of things
	soonest  time.Time // not before, even if hungry
	failures int       // since the last answer
	final    bool      // it is not to be asked again

	// Last announce
	answered bool // it gave a good answer, ever
	err      *TrackerError
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
	id        string         // its `tracker id`, to be said back
	addr      netip.AddrPort // UDP: where the answer came from
}

// working tells whether the last announce was answered well.
func (tr *tracker) working() bool { return tr.err == nil && tr.answered }

// hasNews tells whether an event is due to a tracker that works.
func (tr *tracker) hasNews(completed bool) bool {
	return completed && tr.working() && slices.ContainsFunc(tr.joined[:], func(r registration) bool {
		return r.started && !r.completed
	})
}

func newTrackers(c trackerConfig) *trackers {
	t := &trackers{c: c, kicked: newWaker()}
	seen := make(map[string]bool)
	for _, urls := range c.tiers {
		var tier []*tracker
		for _, s := range urls {
			if s == "" || seen[s] || len(seen) == maxTrackers {
				continue
			}
			seen[s] = true
			tr := &tracker{url: s, tier: len(t.tiers)}
			u, err := parseTrackerURL(s)
			if err != nil {
				tr.err, tr.final = &TrackerError{URL: s, Reason: err.Error(), Err: err}, true
			} else {
				tr.u = u
			}
			tier = append(tier, tr)
		}
		if tier != nil {
			c.rng.Shuffle(len(tier), func(i, j int) { tier[i], tier[j] = tier[j], tier[i] })
			t.tiers = append(t.tiers, tier)
		}
	}
	return t
}

func parseTrackerURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("malformed URL")
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "udp":
		return nil, fmt.Errorf("scheme %q is not supported", printable(u.Scheme))
	case u.Hostname() == "":
		return nil, errors.New("URL without a host")
	case u.Scheme == "udp" && u.Port() == "":
		return nil, errors.New("URL without a port")
	}
	return u, nil
}

// run announces until ctx ends, and returns when nothing is under way any more.
func (t *trackers) run(ctx context.Context) {
	defer t.asked.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		hungry := t.c.hungry()
		t.mu.Lock()
		now := time.Now()
		ask, again := t.due(now, hungry)
		for _, tr := range ask {
			t.ask(ctx, tr, now)
		}
		t.mu.Unlock()

		timer.Stop()
		if !again.IsZero() {
			timer.Reset(again.Sub(now))
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-t.kicked.wake:
		}
	}
}

// due picks the trackers to announce to now, and says when to look again; a zero time is not before
// something happens. The caller holds t.mu.
func (t *trackers) due(now time.Time, hungry bool) (ask []*tracker, again time.Time) {
	look := func(at time.Time) {
		if again.IsZero() || at.Before(again) {
			again = at
		}
	}
	patience := tierPatience
	if hungry {
		patience = hungryPatience
	}

	tiers := t.tiers
	if t.c.private {
		tiers = [][]*tracker{t.oneByOne()}
	}
	waitedFor := 0
	for tr := range t.all() {
		if until := tr.askedAt.Add(patience); tr.asking && now.Before(until) {
			look(until)
			waitedFor++
		} else if !tr.asking && !tr.final && tr.hasNews(t.completed) {
			ask = append(ask, tr)
			waitedFor++
		}
	}

	for _, tier := range tiers {
		for _, tr := range tier {
			if tr.final {
				continue
			}
			heldUntil := tr.askedAt.Add(patience)
			if slices.Contains(ask, tr) {
				heldUntil = now.Add(patience)
			} else if !tr.asking {
				at := tr.next
				if hungry && tr.working() {
					at = tr.soonest
				}
				if now.Before(at) {
					look(at)
					if !tr.working() {
						continue
					}
					if !hungry || t.c.private {
						break
					}
					if tr.peers == 0 {
						continue
					}
				} else {
					if waitedFor >= askedAtOnce {
						break
					}
					ask = append(ask, tr)
					waitedFor++
					heldUntil = now.Add(patience)
				}
			}
			if t.c.private {
				break
			}
			if now.Before(heldUntil) {
				look(heldUntil)
				break
			}
		}
	}
	return ask, again
}

// oneByOne is every tracker in the order in which a private torrent tries them: a tracker that works is
// kept to, whatever its tier.
func (t *trackers) oneByOne() []*tracker {
	order := slices.Concat(t.tiers...)
	if i := slices.Index(order, t.current); i > 0 && t.current.working() {
		order = slices.Insert(slices.Delete(order, i, i+1), 0, t.current)
	}
	return order
}

// all yields every tracker, tier by tier.
func (t *trackers) all() iter.Seq[*tracker] {
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

// complete has `completed` announced, once to each tracker that knows of us. It is only to be called if
// the download completed here.
func (t *trackers) complete() {
	t.mu.Lock()
	t.completed = true
	t.mu.Unlock()
	t.wake()
}

// wake has the schedule thought over, because what the callbacks say has changed.
func (t *trackers) wake() { t.kicked.signal() }

// stats is a snapshot of every tracker, tier by tier in the order in which they are tried.
func (t *trackers) stats() []TrackerStats {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	var stats []TrackerStats
	for tr := range t.all() {
		s := TrackerStats{
			URL: tr.url, Tier: tr.tier,
			Announcing: tr.asking, LastAnnounce: tr.askedAt,
			Warning: tr.warning, Peers: tr.peers,
			Seeds: tr.swarm.Seeds, Leechers: tr.swarm.Leechers, Completed: tr.swarm.Completed,
		}
		if !tr.asking && !tr.final {
			s.NextAnnounce = tr.next
		}
		if tr.err != nil {
			s.Err = tr.err
		} else if tr.asking && now.Sub(tr.askedAt) >= hungryPatience {
			s.Err = tr.silence()
		}
		stats = append(stats, s)
	}
	return stats
}

// lastWords are the *TrackerError of each tracker whose last announce failed or never was answered.
func (t *trackers) lastWords() []error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for tr := range t.all() {
		if tr.err != nil {
			errs = append(errs, tr.err)
		} else if !tr.answered && !tr.askedAt.IsZero() {
			errs = append(errs, tr.silence())
		}
	}
	return errs
}

// silence is the word of a tracker that says nothing.
func (tr *tracker) silence() *TrackerError {
	return &TrackerError{URL: tr.url, Reason: "no answer yet"}
}
