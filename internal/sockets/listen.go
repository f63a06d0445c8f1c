package sockets

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// relisten is the interval at which a listener whose address is missing tries to listen again.
const relisten = time.Second

// Listen listens for TCP connections. If there is a proxy, it is an error. If Config.Bind is set, the listener is bound to
// that address, and Renew makes it listen again on the same port.
func (s *Sockets) Listen(addr string) (net.Listener, error) {
	if s.proxy != nil {
		return nil, errBeside
	}
	if !s.config.Bind.IsValid() {
		return s.listen("tcp", addr)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if ip, err := netip.ParseAddr(host); host != "" && (err != nil || !ip.IsUnspecified() && ip.Unmap() != s.config.Bind) {
		return nil, fmt.Errorf("listen on %s: %w, which is %s", addr, errBindElsewhere, s.config.Bind)
	}
	l := &listener{s: s, network: "tcp4", renewed: make(chan struct{}, 1), closed: make(chan struct{})}
	if s.config.Bind.Is6() {
		l.network = "tcp6"
	}
	if l.Listener, err = s.listen(l.network, net.JoinHostPort(s.config.Bind.String(), port)); err != nil {
		return nil, err
	}
	l.at = l.Addr()
	s.mu.Lock()
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	return l, nil
}

func (s *Sockets) listen(network, addr string) (net.Listener, error) {
	if err := s.present(); err != nil {
		return nil, err
	}
	if l := s.config.System.Listen; l != nil {
		return l(network, addr)
	}
	lc := net.ListenConfig{Control: s.controlListen}
	return lc.Listen(s.ctx, network, addr)
}

func (s *Sockets) controlListen(_, address string, c syscall.RawConn) error { return s.control("", c) }

// A listener listens again when its address has gone and come back.
type listener struct {
	s       *Sockets
	network string
	at      net.Addr      // address of the first inner listener
	renewed chan struct{} // of capacity 1
	closed  chan struct{} // closed by Close

	mu           sync.Mutex
	net.Listener      // nil while there is none
	over         bool // Close was called
}

// Accept returns the next connection. While the address is missing, it waits.
func (l *listener) Accept() (net.Conn, error) {
	for {
		l.mu.Lock()
		inner := l.Listener
		l.mu.Unlock()
		if inner != nil {
			conn, err := inner.Accept()
			if err == nil {
				return conn, nil
			}
			if !l.isGone(inner) {
				return nil, err
			}
		}
		if err := l.again(); err != nil {
			return nil, err
		}
	}
}

// isGone reports whether renew or Close has closed the inner listener.
func (l *listener) isGone(inner net.Listener) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over || l.Listener != inner
}

// again listens at the same address again, as soon as that is possible.
func (l *listener) again() error {
	for {
		l.mu.Lock()
		over := l.over
		l.mu.Unlock()
		if over {
			return net.ErrClosed
		}
		inner, err := l.s.listen(l.network, l.at.String())
		if err == nil {
			l.mu.Lock()
			if l.over {
				inner.Close()
			} else {
				l.Listener = inner
			}
			l.mu.Unlock()
			return nil
		}
		timer := time.NewTimer(relisten)
		select {
		case <-timer.C:
		case <-l.renewed:
		case <-l.closed:
		}
		timer.Stop()
	}
}

// renew closes the inner listener, so that Accept listens again.
func (l *listener) renew() {
	l.mu.Lock()
	if l.Listener != nil {
		l.Listener.Close()
		l.Listener = nil
	}
	l.mu.Unlock()
	select {
	case l.renewed <- struct{}{}:
	default:
	}
}

func (l *listener) Addr() net.Addr {
	if l.at != nil {
		return l.at
	}
	return l.Listener.Addr()
}

func (l *listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return net.ErrClosed
	}
	l.over = true
	close(l.closed)
	l.s.mu.Lock()
	delete(l.s.listeners, l)
	l.s.mu.Unlock()
	if l.Listener == nil {
		return nil
	}
	return l.Listener.Close()
}

// Renew makes all listeners of a bound address listen again. Call it when the address has gone or come back.
func (s *Sockets) Renew() {
	s.mu.Lock()
	var all []*listener
	for l := range s.listeners {
		all = append(all, l)
	}
	s.mu.Unlock()
	for _, l := range all {
		l.renew()
	}
}

// ListenPacket opens a UDP socket. network is "udp4" or "udp6". With a proxy it returns a relay through it, which carries
// packets of both families; "udp6" is an error then.
func (s *Sockets) ListenPacket(ctx context.Context, network, addr string) (net.PacketConn, error) {
	if err := s.NoUDP(); err != nil {
		return nil, err
	}
	if s.proxy == nil {
		return s.listenPacket(ctx, network, addr)
	}
	if network != "udp4" {
		return nil, fmt.Errorf("%s through a proxy: %w", network, syscall.EAFNOSUPPORT)
	}
	return s.openRelay()
}

// ListenNear opens a UDP socket for the local network. If there is a proxy, it is an error.
func (s *Sockets) ListenNear(ctx context.Context, network, addr string) (net.PacketConn, error) {
	if s.proxy != nil {
		return nil, errBeside
	}
	return s.ListenPacket(ctx, network, addr)
}

// listenPacket opens a UDP socket of this machine.
func (s *Sockets) listenPacket(ctx context.Context, network, addr string) (net.PacketConn, error) {
	if s.config.Dial != nil && s.config.ListenPacket == nil {
		return nil, errNoPackets
	}
	if bind := s.config.Bind; bind.IsValid() {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		if bind.Is4() != (network != "udp6") {
			return nil, fmt.Errorf("%s: %w", network, errFamily)
		}
		if ip, err := netip.ParseAddr(host); host != "" && (err != nil || !ip.IsUnspecified() && ip.Unmap() != bind) {
			return nil, fmt.Errorf("listen on %s: %w, which is %s", addr, errBindElsewhere, bind)
		}
		addr = net.JoinHostPort(bind.String(), port)
		if err := s.present(); err != nil {
			return nil, err
		}
	}
	switch {
	case s.config.ListenPacket != nil:
		conn, err := s.config.ListenPacket(ctx, network, addr)
		if err == nil && conn == nil {
			err = fmt.Errorf("listen on %s: %w", addr, errNoConn)
		}
		return conn, err
	case s.config.System.ListenPacket != nil:
		return s.config.System.ListenPacket(ctx, network, addr)
	}
	lc := net.ListenConfig{Control: s.controlListen}
	return lc.ListenPacket(ctx, network, addr)
}
