//go:build linux

package interop

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// announce is what a peer told the tracker.
type announce struct {
	infoHash string // 20 bytes
	addr     netip.AddrPort
	event    string
	left     int64
	agent    string
	at       time.Time
}

// tracker is a small HTTP tracker (BEP 3, BEP 23) that lives in the test, so that the test can see
// what each peer says of itself: that it seeds, or has completed.
type tracker struct {
	url string

	mu        sync.Mutex
	announces []announce
	peers     map[string]map[netip.AddrPort]bool
	changed   chan struct{} // closed, and replaced, by each announce
}

func startTracker(t *testing.T, addr netip.Addr) *tracker {
	t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
	require.NoError(t, err)
	return serveTracker(t, l)
}

// serveTracker is startTracker for a listener.
func serveTracker(t *testing.T, l net.Listener) *tracker {
	t.Helper()
	tr := &tracker{
		url:     "http://" + l.Addr().String() + "/announce",
		peers:   map[string]map[netip.AddrPort]bool{},
		changed: make(chan struct{}),
	}
	s := &http.Server{Handler: tr}
	go s.Serve(l)
	t.Cleanup(func() {
		s.Close()
		if t.Failed() {
			for _, a := range tr.announces {
				t.Logf("%s: announce of %s (%s): event=%q left=%d", a.at.Format("15:04:05.000"), a.addr, a.agent, a.event, a.left)
			}
		}
	})
	return tr
}

func (tr *tracker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	port, err2 := strconv.ParseUint(q.Get("port"), 10, 16)
	left, err3 := strconv.ParseInt(q.Get("left"), 10, 64)
	if err != nil || err2 != nil || err3 != nil || len(q.Get("info_hash")) != 20 {
		http.Error(w, "not an announce", http.StatusBadRequest)
		return
	}
	a := announce{q.Get("info_hash"), netip.AddrPortFrom(from.Addr().Unmap(), uint16(port)), q.Get("event"), left, r.UserAgent(), time.Now()}

	tr.mu.Lock()
	defer tr.mu.Unlock()
	swarm := tr.peers[a.infoHash]
	if swarm == nil {
		swarm = map[netip.AddrPort]bool{}
		tr.peers[a.infoHash] = swarm
	}
	if a.event == "stopped" {
		delete(swarm, a.addr)
	} else {
		swarm[a.addr] = true
	}
	var v4, v6 []byte
	for p := range swarm {
		b, _ := p.MarshalBinary()                           // address, then the port in little-endian order
		b[len(b)-2], b[len(b)-1] = b[len(b)-1], b[len(b)-2] // and big-endian on the wire
		switch {
		case p == a.addr:
		case p.Addr().Is4():
			v4 = append(v4, b...)
		default:
			v6 = append(v6, b...)
		}
	}
	fmt.Fprintf(w, "d8:intervali1800e5:peers%d:%s6:peers6%d:%se", len(v4), v4, len(v6), v6)
	tr.announces = append(tr.announces, a)
	close(tr.changed)
	tr.changed = make(chan struct{})
}

// await waits until a peer has made an announce of some kind. A program that ends before that fails the test at
// once.
func (tr *tracker) await(t *testing.T, what string, p peer, is func(announce) bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		tr.mu.Lock()
		there, more := false, tr.changed
		for _, a := range tr.announces {
			there = there || a.addr.Addr() == p.addr() && is(a)
		}
		tr.mu.Unlock()
		if there {
			return
		}
		select {
		case <-more:
		case <-p.ended():
			t.Fatalf("%s ended before it announced that it %s", p, what)
		case <-deadline:
			t.Fatalf("%s did not announce that it %s within %v", p, what, patience)
		}
	}
}

func seeds(a announce) bool { return a.left == 0 && a.event != "stopped" }
