package torrent

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

// simTracker is an HTTP tracker in a simulated network. It answers whatever URL it is asked at.
type simTracker struct {
	delay    time.Duration // of an answer
	interval time.Duration
	answer   func(*http.Request) (*http.Response, error) // nil is an honest answer

	mu        sync.Mutex
	rng       *rand.Rand
	peers     []netip.AddrPort
	announces []simAnnounce
}

// simAnnounce is what a client said to the tracker.
type simAnnounce struct {
	at                         time.Time
	from                       netip.AddrPort
	event                      string
	uploaded, downloaded, left int64
}

func newSimTracker(seed uint64) *simTracker {
	return &simTracker{delay: 50 * time.Millisecond, interval: 30 * time.Minute, rng: rand.New(rand.NewPCG(seed, 7))}
}

// add and remove say who is in the swarm.
func (tr *simTracker) add(peers ...netip.AddrPort) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, p := range peers {
		if !slices.Contains(tr.peers, p) {
			tr.peers = append(tr.peers, p)
		}
	}
}

func (tr *simTracker) remove(peer netip.AddrPort) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.peers = slices.DeleteFunc(tr.peers, func(p netip.AddrPort) bool { return p == peer })
}

// said returns what was announced so far.
func (tr *simTracker) said() []simAnnounce {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return slices.Clone(tr.announces)
}

// forget empties what said returns.
func (tr *simTracker) forget() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.announces = nil
}

// client is what a host speaks to the tracker with.
func (tr *simTracker) client(h *simnet.Host) *http.Client {
	return &http.Client{Transport: simTransport{tr, h}}
}

type simTransport struct {
	tracker *simTracker
	host    *simnet.Host
}

func (s simTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	select {
	case <-req.Context().Done():
		return nil, req.Context().Err()
	case <-s.host.Network().Pause(s.tracker.delay):
	}
	if s.tracker.answer != nil {
		return s.tracker.answer(req)
	}
	return simAnswer(req, http.StatusOK, s.tracker.announce(s.host.IP(), req)), nil
}

// simAnswer makes an HTTP response.
func simAnswer(req *http.Request, status int, body []byte) *http.Response {
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"text/plain"}}, Request: req,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// announce takes note of the caller and answers with the others, compact as in BEP 23 and BEP 7.
func (tr *simTracker) announce(ip netip.Addr, req *http.Request) []byte {
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
	tr.announces = append(tr.announces, simAnnounce{time.Now(), from, q.Get("event"), number("uploaded"), number("downloaded"), number("left")})
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
	return fmt.Appendf(nil, "d8:intervali%de5:peers%d:%s6:peers6%d:%se", int(tr.interval.Seconds()), len(four), four, len(six), six)
}
