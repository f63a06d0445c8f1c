package portmap_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// latency is what a packet takes from one host of a lan to another.
const latency = time.Millisecond

// A lan is a network in memory, for a synctest bubble. What is sent to where nothing is gets lost.
type lan struct {
	mu      sync.Mutex
	local   []netip.Addr // addresses of this machine
	sockets map[netip.AddrPort]*socket
	next    uint16                                            // ephemeral port
	packets map[netip.AddrPort][]func([]byte, netip.AddrPort) // what answers at an address
	http    map[netip.AddrPort]http.Handler                   //
	dialled []string                                          // by this machine
	sent    map[netip.AddrPort]int                            // packets of this machine
}

func newLAN(local ...string) *lan {
	l := &lan{
		sockets: make(map[netip.AddrPort]*socket),
		next:    40000,
		packets: make(map[netip.AddrPort][]func([]byte, netip.AddrPort)),
		http:    make(map[netip.AddrPort]http.Handler),
		sent:    make(map[netip.AddrPort]int),
	}
	l.move(local...)
	return l
}

// move gives this machine other addresses.
func (l *lan) move(local ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.local = nil
	for _, a := range local {
		l.local = append(l.local, netip.MustParseAddr(a))
	}
}

// answer has packets to an address handled.
func (l *lan) answer(at string, f func(b []byte, from netip.AddrPort)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	addr := netip.MustParseAddrPort(at)
	l.packets[addr] = append(l.packets[addr], f)
}

// serve has connections to an address handled.
func (l *lan) serve(at string, h http.Handler) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.http[netip.MustParseAddrPort(at)] = h
}

// silence has nothing answer any more.
func (l *lan) silence() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.packets)
	clear(l.http)
}

// send delivers a packet to this machine.
func (l *lan) send(b []byte, from string, to netip.AddrPort) {
	d := datagram{slices.Clone(b), netip.MustParseAddrPort(from)}
	time.AfterFunc(latency, func() {
		l.mu.Lock()
		s := l.sockets[to]
		l.mu.Unlock()
		if s != nil {
			select {
			case s.arrived <- d:
			default:
			}
		}
	})
}

// count is how many packets this machine sent to an address.
func (l *lan) count(to string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent[netip.MustParseAddrPort(to)]
}

func (l *lan) dials() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.dialled)
}

func (l *lan) listenPacket(_ context.Context, network, addr string) (net.PacketConn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(l.local, at.Addr()) || (network == "udp4") != at.Addr().Is4() {
		return nil, os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)
	}
	l.next++
	s := &socket{lan: l, addr: netip.AddrPortFrom(at.Addr(), l.next), arrived: make(chan datagram, 16), closed: make(chan struct{})}
	l.sockets[s.addr] = s
	return s, nil
}

func (l *lan) dial(_ context.Context, _, addr string) (net.Conn, error) {
	l.mu.Lock()
	l.dialled = append(l.dialled, addr)
	h := l.http[netip.MustParseAddrPort(addr)]
	l.mu.Unlock()
	if h == nil {
		return nil, syscall.ECONNREFUSED
	}
	ours, theirs := net.Pipe()
	once := &onceListener{conn: theirs}
	go (&http.Server{Handler: h}).Serve(once)
	return ours, nil
}

// A onceListener has one connection.
type onceListener struct{ conn net.Conn }

func (l *onceListener) Accept() (net.Conn, error) {
	if l.conn == nil {
		return nil, net.ErrClosed
	}
	c := l.conn
	l.conn = nil
	return c, nil
}

func (l *onceListener) Close() error   { return nil }
func (l *onceListener) Addr() net.Addr { return &net.TCPAddr{} }

type datagram struct {
	b    []byte
	from netip.AddrPort
}

// A socket is a UDP socket of this machine.
type socket struct {
	lan     *lan
	addr    netip.AddrPort
	arrived chan datagram
	closed  chan struct{}
	once    sync.Once
	readBy  time.Time // for the one goroutine that reads
}

func (s *socket) ReadFrom(b []byte) (int, net.Addr, error) {
	timer := time.NewTimer(time.Until(s.readBy))
	defer timer.Stop()
	select {
	case d := <-s.arrived:
		return copy(b, d.b), net.UDPAddrFromAddrPort(d.from), nil
	case <-s.closed:
		return 0, nil, net.ErrClosed
	case <-timer.C:
		return 0, nil, os.ErrDeadlineExceeded
	}
}

func (s *socket) WriteTo(b []byte, to net.Addr) (int, error) {
	select {
	case <-s.closed:
		return 0, net.ErrClosed
	default:
	}
	at := to.(*net.UDPAddr).AddrPort()
	s.lan.mu.Lock()
	defer s.lan.mu.Unlock()
	if !slices.Contains(s.lan.local, s.addr.Addr()) {
		return 0, os.NewSyscallError("sendto", syscall.EINVAL)
	}
	s.lan.sent[at]++
	for _, f := range s.lan.packets[at] {
		b := slices.Clone(b)
		time.AfterFunc(latency, func() { f(b, s.addr) })
	}
	return len(b), nil
}

func (s *socket) Close() error {
	s.once.Do(func() {
		close(s.closed)
		s.lan.mu.Lock()
		defer s.lan.mu.Unlock()
		delete(s.lan.sockets, s.addr)
	})
	return nil
}

func (s *socket) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(s.addr) }

func (s *socket) SetReadDeadline(t time.Time) error {
	s.readBy = t
	return nil
}

func (s *socket) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (s *socket) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }
