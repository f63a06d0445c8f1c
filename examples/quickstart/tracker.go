package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
)

// tracker is about the least that an HTTP tracker can be (BEP 3, and BEP 23 for the form of its
// answer): it tells each peer that announces of the others that have.
type tracker struct {
	listener net.Listener
	server   http.Server
	news     chan struct{} // one token for each peer that was not known before

	mu    sync.Mutex
	peers map[netip.AddrPort]bool
}

func startTracker() (*tracker, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t := &tracker{listener: l, news: make(chan struct{}, 10), peers: make(map[netip.AddrPort]bool)}
	t.server.Handler = http.HandlerFunc(t.announce)
	go t.server.Serve(l)
	return t, nil
}

func (t *tracker) URL() string { return fmt.Sprintf("http://%s/announce", t.listener.Addr()) }

func (t *tracker) Close() error { return t.server.Close() }

// announce records a peer, and answers with the addresses of the others: 4 bytes of IP and 2
// of port each.
func (t *tracker) announce(w http.ResponseWriter, r *http.Request) {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	port, portErr := strconv.ParseUint(r.FormValue("port"), 10, 16)
	if err != nil || portErr != nil {
		fmt.Fprint(w, "d14:failure reason12:no such porte")
		return
	}
	peer := netip.AddrPortFrom(from.Addr().Unmap(), uint16(port))

	t.mu.Lock()
	defer t.mu.Unlock()
	var others []byte
	for other := range t.peers {
		if other != peer {
			others = append(others, other.Addr().AsSlice()...)
			others = binary.BigEndian.AppendUint16(others, other.Port())
		}
	}
	switch {
	case r.FormValue("event") == "stopped":
		delete(t.peers, peer)
	case !t.peers[peer]:
		t.peers[peer] = true
		select {
		case t.news <- struct{}{}:
		default:
		}
	}
	fmt.Fprintf(w, "d8:intervali1800e5:peers%d:%se", len(others), others)
}
