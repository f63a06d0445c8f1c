package simnet

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
)

// listener accepts connections to one address of a host.
type listener struct {
	host    *Host
	addr    netip.AddrPort
	pending []*Conn
	ready   *sync.Cond
	closed  bool
}

// Listen has the signature of net.Listen. An address without a host part is the host's own; port 0 is any.
func (h *Host) Listen(network, addr string) (net.Listener, error) {
	if err := h.fail("listen"); err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	at, err := h.local(network, addr)
	if err == nil && h.net.listeners[at] != nil {
		err = os.NewSyscallError("bind", syscall.EADDRINUSE)
	}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	l := &listener{host: h, addr: at, ready: sync.NewCond(&h.net.mu)}
	h.net.listeners[at] = l
	return l, nil
}

// local is the host's own address for one that was given to Listen or ListenPacket. The caller holds h.net.mu.
func (h *Host) local(network, addr string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return netip.AddrPort{}, err
	}
	number, err := net.LookupPort(network, port)
	if err != nil {
		return netip.AddrPort{}, err
	}
	ip := h.ip
	if host != "" {
		if ip, err = netip.ParseAddr(host); err != nil {
			return netip.AddrPort{}, err
		}
	}
	wrong := len(network) == 4 && (network[3] == '4') != h.ip.Is4()
	if wrong || ip != h.ip && !ip.IsUnspecified() {
		return netip.AddrPort{}, os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)
	}
	if number == 0 {
		number = int(h.ephemeral())
	}
	return h.Addr(uint16(number)), nil
}

func (l *listener) Accept() (net.Conn, error) {
	if err := l.host.fail("accept"); err != nil {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: err}
	}
	l.host.net.mu.Lock()
	defer l.host.net.mu.Unlock()
	for len(l.pending) == 0 && !l.closed {
		l.ready.Wait()
	}
	if l.closed {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
	}
	c := l.pending[0]
	l.pending = l.pending[1:]
	return c, nil
}

func (l *listener) Close() (err error) {
	if why := l.host.fail("close"); why != nil {
		defer func() { err = cmp.Or(err, error(&net.OpError{Op: "close", Net: "tcp", Addr: l.Addr(), Err: why})) }()
	}
	l.host.net.mu.Lock()
	defer l.host.net.mu.Unlock()
	if l.closed {
		return &net.OpError{Op: "close", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
	}
	l.shut()
	return nil
}

// The caller holds l.host.net.mu.
func (l *listener) shut() {
	l.closed = true
	delete(l.host.net.listeners, l.addr)
	for _, c := range l.pending {
		c.reset()
		c.shut()
	}
	l.pending = nil
	l.ready.Broadcast()
}

func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

// Dial has the signature of net.Dialer.DialContext. It takes a round trip. An address that no host has, or
// whose host was unplugged or has a firewall, never answers; a port without a listener refuses.
func (h *Host) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return h.dialFrom(ctx, 0, network, addr)
}

// dialFrom is Dial from a local port; 0 is any.
func (h *Host) dialFrom(ctx context.Context, port uint16, network, addr string) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	to, err := netip.ParseAddrPort(addr)
	if err == nil {
		err = h.fail("dial")
	}
	if err != nil {
		return fail(err)
	}
	if err := h.roundTrip(ctx, to); err != nil {
		return fail(err)
	}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	l := h.net.listeners[to]
	if l == nil {
		return fail(os.NewSyscallError("connect", syscall.ECONNREFUSED))
	}
	if port == 0 {
		port = h.ephemeral()
	}
	dialled, accepted := h.net.connect(h, l.host, h.Addr(port), to)
	l.pending = append(l.pending, accepted)
	l.ready.Broadcast()
	return dialled, nil
}

// roundTrip waits as long as an answer from an address takes, which may be until ctx ends.
func (h *Host) roundTrip(ctx context.Context, to netip.AddrPort) error {
	h.net.mu.Lock()
	l, answers := h.net.listeners[to], h.net.known[to.Addr()] && !h.cut
	rtt := 2 * h.Delay
	if l != nil {
		rtt = 2 * delay(h, l.host)
		answers = answers && !l.host.cut && (!l.host.guarded || l.host == h)
	}
	h.net.mu.Unlock()
	var answered <-chan struct{}
	if answers {
		answered = h.net.Pause(rtt)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-answered:
		return nil
	}
}
