// Package sockets opens every socket of a client: those for peers, trackers, web seeds, the DHT, uTP, port mapping and
// DNS queries. Only this package implements Client.Proxy and Client.Bind: a socket that is opened elsewhere would bypass
// both. A test of the root package checks that there is none.
//
// A Sockets belongs to one client. It owns the UDP association with a SOCKS proxy, a goroutine that maintains the
// association, and a goroutine that waits for a proxy that is out of reach. The caller closes what the methods return.
// Everything may be called from any goroutine.
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

// Config says how sockets are opened. With the zero value, they are plain sockets of the system.
type Config struct {
	Proxy *url.URL   // the proxy for all traffic, or nil
	Bind  netip.Addr // the address that all sockets are bound to ("the bound address"), if it is valid

	// Dial and ListenPacket, if set, open connections to peers and UDP sockets in place of the system. With Dial and
	// without ListenPacket there is no UDP. If there is a proxy, they connect to the proxy.
	Dial         dialFunc
	ListenPacket listenFunc

	System System

	// Changed is called with again false when the first UDP association with the proxy is open at the first attempt, and
	// with again true when the proxy or its UDP has come back. It must not block. It may be nil.
	Changed func(again bool)
}

// System replaces the functions of the operating system in tests. A nil field means the real function.
type System struct {
	Dial         func(ctx context.Context, from netip.Addr, network, addr string) (net.Conn, error) // from is Config.Bind
	Listen       func(network, addr string) (net.Listener, error)
	ListenPacket listenFunc
	LookUp       func(ctx context.Context, host string) ([]netip.Addr, error)
	Addrs        func() ([]netip.Addr, error) // of this machine
}

// ErrCutOff is the error if no host can be reached, because the proxy is out of reach or the bound address is missing.
var ErrCutOff = errors.New("cut off")

// errUnsupported returns an error that matches errors.ErrUnsupported: the configuration does not allow it.
func errUnsupported(what string) error { return fmt.Errorf("%s: %w", what, errors.ErrUnsupported) }

var (
	errNoPackets     = errUnsupported("no UDP with Client.Dial and without Client.ListenPacket")
	errHTTPProxy     = errUnsupported("no UDP through an HTTP proxy")
	errBeside        = errUnsupported("would bypass Client.Proxy")
	errNoName        = errUnsupported("names are looked up by the proxy only")
	errFamily        = errUnsupported("an address of another family than Client.Bind")
	errNameHere      = errUnsupported("a name server on this machine would bypass Client.Bind")
	errBindElsewhere = errors.New("an address other than Client.Bind")
)

// Sockets opens the sockets of one client.
type Sockets struct {
	config Config
	proxy  *proxy.Proxy // nil if there is none
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu        sync.Mutex
	proxyErr  error                  // why the proxy is out of reach, or nil
	relay     *relay                 // the last one opened, or nil
	listeners map[*listener]struct{} // those that Renew makes listen again
}

// New returns a Sockets with a configuration. It fails if Proxy is not a valid URL of a proxy or Bind not a unicast address.
// It opens no socket.
func New(c Config) (*Sockets, error) {
	s := &Sockets{config: c, listeners: make(map[*listener]struct{})}
	if c.Bind.IsValid() {
		if c.Bind.IsUnspecified() || c.Bind.IsMulticast() {
			return nil, fmt.Errorf("bind to %s: not a unicast address", c.Bind)
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

// Close ends the goroutines of s and waits for them. Sockets that were returned to callers stay open.
func (s *Sockets) Close() {
	s.mu.Lock() // so that start begins no task after Wait
	s.cancel()
	s.mu.Unlock()
	s.tasks.Wait()
}

// start runs task in a goroutine, unless s is closed. The caller holds s.mu.
func (s *Sockets) start(task func()) {
	if s.ctx.Err() == nil {
		s.tasks.Go(task)
	}
}

// Bind returns the bound address. It is invalid if there is none.
func (s *Sockets) Bind() netip.Addr { return s.config.Bind }

// Reaches reports whether addresses of the family of a can be reached: through a proxy all, else those of the family of the
// bound address.
func (s *Sockets) Reaches(a netip.Addr) bool {
	return s.proxy != nil || !s.config.Bind.IsValid() || s.config.Bind.Is4() == a.Unmap().Is4()
}

const (
	proxyTimeout = 10 * time.Second // for a connection to the proxy
	firstPause   = time.Second      // before the proxy is tried again; doubled after each failure
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

// awaitProxy tries to connect to the proxy until that succeeds, and then calls Config.Changed.
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

// rest waits for d. It returns false at once when s is closed.
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

// ProxyErr returns why the proxy is out of reach at present, or nil.
func (s *Sockets) ProxyErr() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proxyErr
}

// UDPErr returns why no UDP packet can be sent at present, or nil. It matches errors.ErrUnsupported if the configuration or
// the proxy does not support UDP.
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

// NoUDP returns why the configuration does not allow UDP, or nil.
func (s *Sockets) NoUDP() error {
	switch {
	case s.config.Dial != nil && s.config.ListenPacket == nil:
		return errNoPackets
	case s.proxy != nil && s.config.Proxy.Scheme == "http":
		return errHTTPProxy
	}
	return nil
}
