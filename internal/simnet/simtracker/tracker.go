// Package simtracker has an HTTP tracker for tests in a simulated network: it tells the peers that announce
// of each other, and records what they said. A test gives the code under test the HTTP client of its host.
//
//	tracker := simtracker.New(1)
//	client := &torrent.Client{HTTPClient: tracker.Client(host)}
//
// Its methods may be called from any goroutine.
package simtracker

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/shoal-go/torrent/internal/simnet"
)

// Tracker is an HTTP tracker in a simulated network. It answers every URL. The fields are set before the
// first announce.
type Tracker struct {
	Delay    time.Duration                               // before an answer
	Interval time.Duration                               // that it asks for
	Answer   func(*http.Request) (*http.Response, error) // nil answers honestly

	mu    sync.Mutex
	rng   *rand.Rand
	peers []netip.AddrPort
	said  []Announce
}

// Announce is what a client said to the tracker. A number that it did not say is -1.
type Announce struct {
	At                         time.Time
	From                       netip.AddrPort
	Event                      string
	Uploaded, Downloaded, Left int64
}

// New returns a tracker without peers. The order in which it names them is drawn from the seed.
func New(seed uint64) *Tracker {
	return &Tracker{Delay: 50 * time.Millisecond, Interval: 30 * time.Minute, rng: rand.New(rand.NewPCG(seed, 7))}
}

// Add adds peers to the swarm, as if they had announced.
func (tr *Tracker) Add(peers ...netip.AddrPort) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, p := range peers {
		if !slices.Contains(tr.peers, p) {
			tr.peers = append(tr.peers, p)
		}
	}
}

// Remove takes a peer out of the swarm.
func (tr *Tracker) Remove(peer netip.AddrPort) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.peers = slices.DeleteFunc(tr.peers, func(p netip.AddrPort) bool { return p == peer })
}

// Announces returns the announces so far, oldest first.
func (tr *Tracker) Announces() []Announce {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return slices.Clone(tr.said)
}

// Forget empties what Announces returns.
func (tr *Tracker) Forget() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.said = nil
}

// Client returns the HTTP client with which a host reaches the tracker, whatever the URL.
func (tr *Tracker) Client(h *simnet.Host) *http.Client {
	return &http.Client{Transport: transport{tr, h}}
}

// transport reaches the tracker from a host.
type transport struct {
	tracker *Tracker
	host    *simnet.Host
}

func (s transport) RoundTrip(req *http.Request) (*http.Response, error) {
	select {
	case <-req.Context().Done():
		return nil, req.Context().Err()
	case <-s.host.Network().Pause(s.tracker.Delay):
	}
	if s.tracker.Answer != nil {
		return s.tracker.Answer(req)
	}
	return Response(req, http.StatusOK, s.tracker.announce(s.host.IP(), req)), nil
}

// Response makes an HTTP response, for Tracker.Answer.
func Response(req *http.Request, status int, body []byte) *http.Response {
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"text/plain"}}, Request: req,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// announce records an announce and answers with the other peers, compact as in BEP 23 and BEP 7.
func (tr *Tracker) announce(ip netip.Addr, req *http.Request) []byte {
	q := req.URL.Query()
	number := func(key string) int64 {
		n, err := strconv.ParseInt(q.Get(key), 10, 64)
		if err != nil {
			return -1
		}
		return n
	}
	from := netip.AddrPortFrom(ip, uint16(number("port")))
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.said = append(tr.said, Announce{time.Now(), from, q.Get("event"), number("uploaded"), number("downloaded"), number("left")})
	at := slices.Index(tr.peers, from)
	var four, six []byte
	want := int(number("numwant"))
	if want < 0 {
		want = 50
	}
	for _, i := range tr.rng.Perm(len(tr.peers)) {
		p := tr.peers[i]
		switch {
		case i == at || len(four)/6+len(six)/18 >= want:
		case p.Addr().Is4():
			four = append(append(four, p.Addr().AsSlice()...), byte(p.Port()>>8), byte(p.Port()))
		default:
			six = append(append(six, p.Addr().AsSlice()...), byte(p.Port()>>8), byte(p.Port()))
		}
	}
	switch {
	case q.Get("event") == "stopped" && at >= 0:
		tr.peers = slices.Delete(tr.peers, at, at+1)
	case q.Get("event") != "stopped" && at < 0 && from.Port() != 0:
		tr.peers = append(tr.peers, from)
	}
	return fmt.Appendf(nil, "d8:intervali%de5:peers%d:%s6:peers6%d:%se", int(tr.Interval.Seconds()), len(four), four, len(six), six)
}
