package torrent

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"
)

// dialTimeout bounds one attempt to connect.
const dialTimeout = 5 * time.Second

// A transport is how connections to peers are had: one dial and one set of listeners. Nothing above it
// knows by which way a connection came. It may be used from any goroutine.
type transport struct {
	// dialTCP is fixed before the transport is used.
	dialTCP func(ctx context.Context, network, addr string) (net.Conn, error)

	mu        sync.Mutex
	listeners []net.Listener
}

// dial connects to a peer.
func (t *transport) dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return t.dialTCP(ctx, "tcp", addr.String())
}

// add records a listener, which close closes.
func (t *transport) add(l net.Listener) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.listeners = append(t.listeners, l)
}

// addr is where peers are accepted, or nil.
func (t *transport) addr() net.Addr {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.listeners) == 0 {
		return nil
	}
	return t.listeners[0].Addr()
}

// close ends accepting.
func (t *transport) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.listeners {
		l.Close()
	}
}
