package torrent

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/shoal-go/torrent/internal/utp"
)

const (
	// dialTimeout bounds one attempt to connect.
	dialTimeout = 5 * time.Second
	// proxyDialTimeout is the same through a proxy, some of which take many hops.
	proxyDialTimeout = 20 * time.Second
	// headStart is how long the way that is tried first is tried alone.
	headStart = 250 * time.Millisecond
)

// A way is what carries a connection.
type way uint8

const (
	anyWay way = iota // not known yet
	byTCP
	byUTP // BEP 29
)

func (w way) String() string { return [...]string{"", "tcp", "utp"}[w] }

// wayOf is what carries a connection that a peer made.
func wayOf(conn net.Conn) way {
	if _, ok := conn.RemoteAddr().(utp.Addr); ok {
		return byUTP
	}
	return byTCP
}

// A transport is how connections to peers are had: by which ways they are dialled, and a set of listeners. But for
// Stats, nothing above it knows by which way a connection came. It may be used from any goroutine.
type transport struct {
	// Fixed before the transport is used; nil is a way that is not there.
	dialTCP func(ctx context.Context, network, addr string) (net.Conn, error)
	dialUTP func(ctx context.Context, addr netip.AddrPort) (net.Conn, error)
	timeout time.Duration // of a dial

	mu        sync.Mutex
	listeners []net.Listener
}

// dial connects to a peer by one way.
func (t *transport) dial(ctx context.Context, by way, addr netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	if by == byUTP {
		return t.dialUTP(ctx, addr)
	}
	return t.dialTCP(ctx, "tcp", addr.String())
}

// ways are those by which a peer may be dialled, in the order in which they are tried: first the one that
// worked last time, or TCP.
func (t *transport) ways(last way) (ways []way) {
	if t.dialTCP != nil {
		ways = append(ways, byTCP)
	}
	if t.dialUTP != nil {
		ways = append(ways, byUTP)
	}
	if len(ways) == 2 && last == byUTP {
		ways[0], ways[1] = byUTP, byTCP
	}
	return ways
}

// race tries the ways in turn, each once the one before has failed or had its head start, and returns the first
// connection that is made. The others are closed, in goroutines of tasks. The error is that of the first way.
func race(ctx context.Context, ways []way, tasks *sync.WaitGroup, connect func(context.Context, way) (*connection, error)) (*connection, error) {
	if len(ways) == 1 {
		return connect(ctx, ways[0])
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		k   *connection
		way int
		err error
	}
	results := make(chan result, len(ways))
	timer := time.NewTimer(0)
	defer timer.Stop()
	errs := make([]error, len(ways))
	started, ended := 0, 0
	for ended < len(ways) {
		select {
		case <-timer.C:
			if i := started; i < len(ways) {
				started++
				tasks.Go(func() {
					k, err := connect(ctx, ways[i])
					results <- result{k, i, err}
				})
				timer.Reset(headStart)
			}
		case r := <-results:
			ended++
			if errs[r.way] = r.err; r.err == nil || errors.Is(r.err, errSelf) || ctx.Err() != nil {
				tasks.Go(func() { // what comes of the others is not wanted
					for range started - ended {
						if r := <-results; r.err == nil {
							r.k.Close()
						}
					}
				})
				return r.k, r.err
			}
			timer.Reset(0)
		}
	}
	return nil, errs[0]
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
