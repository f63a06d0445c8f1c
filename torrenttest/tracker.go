package torrenttest

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"testing"
)

// tracker is an HTTP tracker (BEP 3, 7, 23) that treats all info hashes as one.
type tracker struct {
	mu    sync.Mutex
	peers []netip.AddrPort
}

// runTracker serves a tracker until the test ends.
func runTracker(tb testing.TB, at place, peers []netip.AddrPort) (announce string) {
	if tb != nil {
		tb.Helper()
	}
	l, err := at.listen()
	if err != nil {
		fail(tb, err)
	}
	server := &http.Server{Handler: &tracker{peers: slices.Clone(peers)}}
	served := make(chan struct{})
	go func() {
		defer close(served)
		server.Serve(l)
	}()
	if tb != nil {
		tb.Cleanup(func() {
			server.Close()
			<-served
		})
	}
	return "http://" + l.Addr().String() + "/announce"
}

func (tr *tracker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	port, err := strconv.ParseUint(q.Get("port"), 10, 16)
	from, fromErr := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || fromErr != nil {
		fmt.Fprint(w, "d14:failure reason7:no porte")
		return
	}
	peer := netip.AddrPortFrom(from.Addr().Unmap(), uint16(port))
	tr.mu.Lock()
	defer tr.mu.Unlock()
	var four, six []byte
	for _, p := range tr.peers {
		switch {
		case p == peer:
		case p.Addr().Is4():
			four = binary.BigEndian.AppendUint16(append(four, p.Addr().AsSlice()...), p.Port())
		default:
			six = binary.BigEndian.AppendUint16(append(six, p.Addr().AsSlice()...), p.Port())
		}
	}
	tr.peers = slices.DeleteFunc(tr.peers, func(p netip.AddrPort) bool { return p == peer })
	if q.Get("event") != "stopped" && port != 0 {
		tr.peers = append(tr.peers, peer)
	}
	fmt.Fprintf(w, "d8:intervali1800e5:peers%d:%s6:peers6%d:%se", len(four), four, len(six), six)
}
