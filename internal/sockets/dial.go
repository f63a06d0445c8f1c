package sockets

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/shoal-go/torrent/internal/httpguard"
	"github.com/shoal-go/torrent/internal/netaddr"
)

// Dial connects to a peer: through the proxy if there is one, else with Config.Dial if it is set, else with a socket of the
// system.
func (s *Sockets) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	switch {
	case s.proxy != nil:
		return s.proxy.Dial(ctx, network, addr)
	case s.config.Dial != nil:
		return s.dialUser(ctx, network, addr)
	}
	return s.dial(ctx, network, addr, nil)
}

// DialHost connects to a host for HTTP. addr has a name or an IP address. DialHost calls check with each IP address before
// it connects to that, and fails with its error; an address of this machine is passed as a link-local one. With a proxy, only
// the proxy looks up names, so check is called only if addr has an IP address. check may be nil.
func (s *Sockets) DialHost(ctx context.Context, network, addr string, check func(host string) error) (net.Conn, error) {
	if s.proxy == nil {
		return s.dial(ctx, network, addr, check)
	}
	host, _, err := net.SplitHostPort(addr)
	if err == nil && check != nil {
		if _, literal := netip.ParseAddr(host); literal == nil {
			err = check(host)
		}
	}
	if err != nil {
		return nil, err
	}
	conn, err := s.proxy.Dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &hostConn{conn, hostAddr(addr)}, nil
}

// maxTried is how many addresses of each family a dial with a check tries. A stranger may have chosen the host, and its name
// may have thousands of addresses, all of them other people's.
const maxTried = 8

var errManyAddrs = fmt.Errorf("more than %d addresses", maxTried)

// fewOf returns a check that calls check for the first maxTried addresses of each family, and refuses all later ones.
func fewOf(check func(host string) error) func(host string) error {
	var tried4, tried6 atomic.Int32
	return func(host string) error {
		tried := &tried4
		if strings.Contains(host, ":") {
			tried = &tried6
		}
		if tried.Add(1) > maxTried {
			return errManyAddrs
		}
		return check(host)
	}
}

// judged returns the host to check in place of host. An address of this machine, or in the same IPv6 network (/64), is
// inside our network even if it is public: a service there may be closed to the Internet. It is checked as a link-local one.
func (s *Sockets) judged(host string) string {
	ip, err := netip.ParseAddr(host)
	if err != nil || httpguard.IsInward(host) {
		return host
	}
	own, _ := s.Addrs()
	for _, a := range own {
		near, err := a.WithZone("").Prefix(64)
		if a == ip.Unmap() || a.Is6() && err == nil && near.Contains(ip) {
			return "fe80::"
		}
	}
	return host
}

// A hostConn is a connection whose RemoteAddr is replaced: by the requested host if it goes through a proxy, by a link-local
// address if it goes to this machine or its network.
type hostConn struct {
	net.Conn
	remote hostAddr
}

func (c *hostConn) RemoteAddr() net.Addr { return c.remote }

type hostAddr string

func (hostAddr) Network() string  { return "tcp" }
func (a hostAddr) String() string { return string(a) }

// DialNear connects to an address of the local network. If there is a proxy, it is an error.
func (s *Sockets) DialNear(ctx context.Context, network, addr string) (net.Conn, error) {
	switch {
	case s.proxy != nil:
		return nil, errBeside
	case s.config.Dial != nil:
		return s.dialUser(ctx, network, addr)
	}
	return s.dial(ctx, network, addr, nil)
}

var errNoConn = errors.New("a function of the user's returned neither a connection nor an error")

// dialUser connects with Config.Dial. It closes a connection that does not come from the bound address.
func (s *Sockets) dialUser(ctx context.Context, network, addr string) (net.Conn, error) {
	if err := s.refuse(addr); err != nil {
		return nil, err
	}
	conn, err := s.config.Dial(ctx, network, addr)
	if err == nil && conn == nil {
		err = fmt.Errorf("dial %s: %w", addr, errNoConn)
	}
	if err != nil || !s.config.Bind.IsValid() {
		return conn, err
	}
	if from := netaddr.Of(conn.LocalAddr()).Addr(); from != s.config.Bind {
		conn.Close()
		return nil, fmt.Errorf("dial %s: Client.Dial connects from %s: %w", addr, from, errBindElsewhere)
	}
	return conn, nil
}

// dial connects with a socket of the system.
func (s *Sockets) dial(ctx context.Context, network, addr string, check func(host string) error) (net.Conn, error) {
	if err := s.refuse(addr); err != nil {
		return nil, err
	}
	if d := s.config.System.Dial; d != nil {
		if host, _, err := net.SplitHostPort(addr); err == nil && check != nil {
			if err := check(s.judged(host)); err != nil {
				return nil, err
			}
		}
		conn, err := d(ctx, s.config.Bind, network, addr)
		return s.asJudged(conn, err, check)
	}
	if check != nil {
		check = fewOf(check)
	}
	d := net.Dialer{Resolver: s.resolver()}
	if s.config.Bind.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: s.config.Bind.AsSlice(), Zone: s.config.Bind.Zone()}
		if len(network) >= 3 && network[:3] == "udp" {
			d.LocalAddr = &net.UDPAddr{IP: s.config.Bind.AsSlice(), Zone: s.config.Bind.Zone()}
		}
	}
	d.Control = func(network, address string, c syscall.RawConn) error {
		host, _, _ := net.SplitHostPort(address)
		if check != nil {
			if err := check(s.judged(host)); err != nil {
				return err
			}
		}
		return s.control(host, c)
	}
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil && s.config.Bind.IsValid() && isCutOff(err) {
		err = fmt.Errorf("%w: %w", ErrCutOff, err)
	}
	return s.asJudged(conn, err, check)
}

// asJudged returns conn with the RemoteAddr that was checked. An HTTP client may keep the connection for a later request
// whose check is stricter, and checks its RemoteAddr then.
func (s *Sockets) asJudged(conn net.Conn, err error, check func(host string) error) (net.Conn, error) {
	if err != nil || check == nil {
		return conn, err
	}
	if host, port, err := net.SplitHostPort(conn.RemoteAddr().String()); err == nil {
		if j := s.judged(host); j != host {
			return &hostConn{conn, hostAddr(net.JoinHostPort(j, port))}, nil
		}
	}
	return conn, nil
}

// isCutOff reports whether a dial failed because this machine lacks the bound address.
func isCutOff(err error) bool {
	return errors.Is(err, syscall.ENETDOWN) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, errNoDevice)
}

// refuse returns an error if the bound address is of another family than addr, or missing.
func (s *Sockets) refuse(addr string) error {
	if !s.config.Bind.IsValid() {
		return nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap().Is4() != s.config.Bind.Is4() {
		return fmt.Errorf("%s: %w", addr, errFamily)
	}
	return s.present()
}

// obeyTimeout is how long an HTTP client of the user may take to connect to a host. The end of a request does not end its dial.
const obeyTimeout = 30 * time.Second

// Obey returns a copy of an HTTP client of the user that connects through the proxy or from the bound address. It returns
// c itself if there is neither, or if its Transport is not an *http.Transport, which cannot be changed.
func (s *Sockets) Obey(c *http.Client) *http.Client {
	if s.proxy == nil && !s.config.Bind.IsValid() {
		return c
	}
	var t *http.Transport
	switch given := c.Transport.(type) {
	case nil:
		t = newTransport()
	case *http.Transport:
		t = given.Clone()
	default:
		return c
	}
	if s.proxy != nil {
		t.Proxy = nil
	}
	//lint:ignore SA1019 the transport of a user may set it
	t.DialTLS, t.DialTLSContext = nil, nil
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, obeyTimeout)
		defer cancel()
		return s.DialHost(ctx, network, addr, func(host string) error { return httpguard.Check(ctx, host) })
	}
	obeying := *c
	obeying.Transport = t
	return &obeying
}

// newTransport returns a copy of http.DefaultTransport. If the program has replaced that by another type, which could
// connect in any way, it returns a transport with the original settings.
func newTransport() *http.Transport {
	if t, ok := http.DefaultTransport.(*http.Transport); ok {
		return t.Clone()
	}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true,
		MaxIdleConns: 100, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second,
	}
}
