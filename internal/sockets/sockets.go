// Package sockets opens every socket of a client: what peers, trackers, web seeds, the DHT, uTP, port mapping and
// lookups of names speak through. A proxy, and an address that all of it is bound to, are obeyed here and nowhere
// else, so that what is not opened by this package obeys neither; a test of the root sees to it that nothing is.
//
// A Sockets belongs to one client. It owns the UDP association with a SOCKS proxy, and one goroutine while that is
// made or the proxy is out of reach; what its methods return is the caller's to close. All of it may be called from
// any goroutine.
package sockets

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/shoal-go/torrent/internal/proxy"
)

type (
	dialFunc   = func(ctx context.Context, network, addr string) (net.Conn, error)
	listenFunc = func(ctx context.Context, network, addr string) (net.PacketConn, error)
)

// Config says which ways there are. Its zero value is the system's own.
type Config struct {
	Proxy *url.URL   // what everything goes through, or nil
	Bind  netip.Addr // what everything is bound to, if it is valid

	// Dial and ListenPacket are the user's own ways for connections to peers and for packets. With Dial and
	// without ListenPacket there are no packets. They reach the proxy if there is one.
	Dial         dialFunc
	ListenPacket listenFunc

	System System

	// Changed is called when UDP at the proxy is there for the first time, and, with again, when the proxy or UDP there
	// is back. It must not wait. It may be nil.
	Changed func(again bool)
}

// System is the system, in whose place tests put another. A field that is nil is the real one.
type System struct {
	Dial         func(ctx context.Context, from netip.Addr, network, addr string) (net.Conn, error) // from is valid if it is bound
	Listen       func(network, addr string) (net.Listener, error)
	ListenPacket listenFunc
	LookUp       func(ctx context.Context, host string) ([]netip.Addr, error)
	Addrs        func() ([]netip.Addr, error) // of this machine
}

// ErrCutOff is the error if nothing can be sent to any host: the proxy, or the address that everything is bound to,
// is out of reach.
var ErrCutOff = errors.New("cut off")

// errUnsupported of a kind of traffic is that the configuration leaves no way for it.
func errUnsupported(what string) error { return fmt.Errorf("%s: %w", what, errors.ErrUnsupported) }

var (
	errNoPackets  = errUnsupported("no UDP with Client.Dial and without Client.ListenPacket")
	errHTTPProxy  = errUnsupported("no UDP through an HTTP proxy")
	errBeside     = errUnsupported("not beside Client.Proxy")
	errNoName     = errUnsupported("a name that only the proxy can look up")
	errFamily     = errUnsupported("an address of another family than Client.Bind")
	errNameHere   = errUnsupported("a name server on this machine beside Client.Bind")
	errBindElsewh = errors.New("an address other than Client.Bind")
)

// Sockets opens sockets.
type Sockets struct {
	config Config
	proxy  *proxy.Proxy // nil if there is none
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu        sync.Mutex
	proxyErr  error // why the proxy is out of reach, or nil
	relay     *relay
	listeners map[*listener]struct{}
}

// New returns the sockets of a configuration. The error is what is wrong with the proxy's URL or the address.
// Nothing is opened.
func New(c Config) (*Sockets, error) {
	s := &Sockets{config: c, listeners: make(map[*listener]struct{})}
	if c.Bind.IsValid() {
		if c.Bind.IsUnspecified() || c.Bind.IsMulticast() {
			return nil, fmt.Errorf("bind to %s: not one address of this machine", c.Bind)
		}
		s.config.Bind = c.Bind.Unmap()
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if c.Proxy != nil {
		var err error
		if s.proxy, err = proxy.New(c.Proxy, s.dialProxy, s.listenPacket); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Close ends what goes on by itself.
func (s *Sockets) Close() {
	s.mu.Lock() // no task is begun any more
	s.cancel()
	s.mu.Unlock()
	s.tasks.Wait()
}

// start begins a task unless everything is over. The caller holds s.mu.
func (s *Sockets) start(task func()) {
	if s.ctx.Err() == nil {
		s.tasks.Go(task)
	}
}

// Bind is the address that everything is bound to; invalid is none.
func (s *Sockets) Bind() netip.Addr { return s.config.Bind }

// Reaches reports whether there is a way to an address, by its family.
func (s *Sockets) Reaches(a netip.Addr) bool {
	return s.proxy != nil || !s.config.Bind.IsValid() || s.config.Bind.Is4() == a.Unmap().Is4()
}

const (
	proxyTimeout = 10 * time.Second // for a connection to the proxy
	firstPause   = time.Second
	longestPause = 30 * time.Second
)

// dialProxy connects to the proxy, unless it is known to be out of reach.
func (s *Sockets) dialProxy(ctx context.Context, network, addr string) (net.Conn, error) {
	if err := s.ProxyErr(); err != nil {
		return nil, err
	}
	conn, err := s.reachProxy(ctx, network, addr)
	if err == nil || errors.Is(context.Cause(ctx), context.Canceled) {
		return conn, err
	}
	err = fmt.Errorf("%w: %w", ErrCutOff, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proxyErr == nil {
		s.proxyErr = err
		s.start(func() { s.awaitProxy(network, addr) })
	}
	return nil, err
}

func (s *Sockets) reachProxy(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, proxyTimeout)
	defer cancel()
	if s.config.Dial != nil {
		return s.dialUser(ctx, network, addr)
	}
	return s.dial(ctx, network, addr, nil)
}

// awaitProxy tries to reach the proxy until it can, and then has that known.
func (s *Sockets) awaitProxy(network, addr string) {
	for pause := firstPause; s.rest(pause); pause = min(2*pause, longestPause) {
		conn, err := s.reachProxy(s.ctx, network, addr)
		if err != nil {
			continue
		}
		conn.Close()
		s.mu.Lock()
		s.proxyErr = nil
		if s.relay != nil {
			s.relay.hurry()
		}
		s.mu.Unlock()
		s.changed(true)
		return
	}
}

// rest waits, and reports whether there is anything left to do.
func (s *Sockets) rest(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}

func (s *Sockets) changed(again bool) {
	if s.config.Changed != nil {
		s.config.Changed(again)
	}
}

// ProxyErr is why the proxy is out of reach at present, or nil.
func (s *Sockets) ProxyErr() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proxyErr
}

// UDPErr is why no packet can be sent at present, or nil. It matches errors.ErrUnsupported if there is no way for
// packets at all.
func (s *Sockets) UDPErr() error {
	switch {
	case s.config.Dial != nil && s.config.ListenPacket == nil:
		return errNoPackets
	case s.proxy == nil:
		return nil
	case s.config.Proxy.Scheme == "http":
		return errHTTPProxy
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.relay == nil {
		return s.proxyErr
	}
	return s.relay.error()
}

// NoUDP is why no packet can ever be sent, or nil.
func (s *Sockets) NoUDP() error {
	switch {
	case s.config.Dial != nil && s.config.ListenPacket == nil:
		return errNoPackets
	case s.proxy != nil && s.config.Proxy.Scheme == "http":
		return errHTTPProxy
	}
	return nil
}
