// Package proxy reaches other hosts through a proxy: by SOCKS 5 (RFC 1928, 1929), TCP and UDP, or by the
// CONNECT of HTTP, TCP alone. Names are resolved at the proxy, always, so that not even a question for one
// leaves beside it.
//
// A Proxy holds nothing but its address; each connection and each UDP association is the caller's to
// close. Everything may be used from any goroutine.
//
// golang.org/x/net/proxy speaks SOCKS 5 without UDP, which is what most of this package is for.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"time"
)

// A Proxy is a way to other hosts.
type Proxy struct {
	scheme string // "socks5" or "http"
	addr   string // host and port of the proxy
	user   *url.Userinfo
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	listen func(ctx context.Context, network, addr string) (net.PacketConn, error)
}

// New returns the proxy that a URL names: socks5, socks5h or http, a host, a port unless it is 1080 or
// 80, and a user and a password if it wants them. It is connected to by dial; packets to it leave through
// sockets of listen, on a port that is free. Neither is called here.
func New(u *url.URL, dial func(ctx context.Context, network, addr string) (net.Conn, error), listen func(ctx context.Context, network, addr string) (net.PacketConn, error)) (*Proxy, error) {
	p := &Proxy{scheme: u.Scheme, user: u.User, dial: dial, listen: listen}
	port := u.Port()
	switch u.Scheme {
	case "socks5", "socks5h":
		p.scheme = "socks5"
		if port == "" {
			port = "1080"
		}
	case "http":
		if port == "" {
			port = "80"
		}
	default:
		return nil, fmt.Errorf("proxy %s: scheme %q is not socks5, socks5h or http", u.Redacted(), u.Scheme)
	}
	p.addr = net.JoinHostPort(u.Hostname(), port)
	if _, err := parseTarget(p.addr); err != nil {
		return nil, fmt.Errorf("proxy %s: %w", u.Redacted(), err)
	}
	if p.scheme == "socks5" && u.User != nil {
		if err := checkUser(u.User); err != nil {
			return nil, fmt.Errorf("proxy %s: %w", u.Redacted(), err)
		}
	}
	return p, nil
}

// String names the proxy, without the user.
func (p *Proxy) String() string { return p.scheme + "://" + p.addr }

// Dial connects to a host and port through the proxy. network is "tcp" or "udp", or either with a 4 or a 6
// behind it, which a proxy cannot be told and which counts for nothing. For UDP what is written goes to addr,
// and what is read comes from there; an error matches errors.ErrUnsupported as that of ListenPacket does.
func (p *Proxy) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	to, err := parseTarget(addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s by proxy %s: %w", addr, p, err)
	}
	var c net.Conn
	switch network {
	case "tcp", "tcp4", "tcp6":
		c, err = p.connect(ctx, to)
	case "udp", "udp4", "udp6":
		var a *association
		if a, err = p.associate(ctx); err == nil {
			c = &packetDialled{association: a, to: to}
		}
	default:
		err = net.UnknownNetworkError(network)
	}
	if err != nil {
		return nil, fmt.Errorf("dial %s by proxy %s: %w", addr, p, err)
	}
	return c, nil
}

// connect makes a connection to a target.
func (p *Proxy) connect(ctx context.Context, to target) (net.Conn, error) {
	conn, err := p.dial(ctx, "tcp", p.addr)
	if err != nil {
		return nil, err
	}
	made := conn
	err = handshake(ctx, conn, func() (err error) {
		if p.scheme == "http" {
			made, err = connectHTTP(conn, p.user, to)
			return err
		}
		_, err = requestSOCKS(conn, p.user, socksConnect, to)
		return err
	})
	if err != nil {
		conn.Close()
		return nil, err
	}
	return made, nil
}

// ListenPacket opens an association for UDP, of which the proxy sends and receives packets on a port of its
// own. The connection that is returned sends to IP addresses and to names, which any net.Addr may hold
// whose String is a host and a port, and returns IP addresses, or names if the proxy names the sender. It
// ends, with an error that matches net.ErrClosed, when the proxy ends the association. network and addr are
// not used, for a proxy cannot be told; they make ListenPacket one of its kind.
//
// The error matches errors.ErrUnsupported if the proxy does no UDP, or not for this user.
func (p *Proxy) ListenPacket(ctx context.Context, network, addr string) (net.PacketConn, error) {
	a, err := p.associate(ctx)
	if err != nil {
		return nil, fmt.Errorf("listen for UDP by proxy %s: %w", p, err)
	}
	return a, nil
}

// A target is a host and a port to reach.
type target struct {
	ip   netip.Addr // unmapped; invalid if the host is a name
	name string
	port uint16
}

// maxName is the length of a name that fits in a request.
const maxName = 255

// parseTarget reads "host:port".
func parseTarget(addr string) (target, error) {
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return target{}, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil || port == 0 {
		return target{}, fmt.Errorf("no port: %q", service)
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case err == nil && ip.Zone() != "":
		return target{}, fmt.Errorf("an address of this machine's network: %s", ip)
	case err == nil:
		return target{ip: ip.Unmap(), port: uint16(port)}, nil
	case host == "" || len(host) > maxName:
		return target{}, fmt.Errorf("no name of a host: %q", host)
	}
	for _, c := range []byte(host) {
		if c <= ' ' || c == 0x7f {
			return target{}, fmt.Errorf("no name of a host: %q", host)
		}
	}
	return target{name: host, port: uint16(port)}, nil
}

// String is host:port.
func (t target) String() string {
	if t.ip.IsValid() {
		return netip.AddrPortFrom(t.ip, t.port).String()
	}
	return net.JoinHostPort(t.name, strconv.Itoa(int(t.port)))
}

// Network makes a target with a name a net.Addr of packets.
func (t target) Network() string { return "udp" }

func (t target) packetAddr() net.Addr {
	if t.ip.IsValid() {
		return net.UDPAddrFromAddrPort(netip.AddrPortFrom(t.ip, t.port))
	}
	return t
}

// handshake does f on a connection, which fails when ctx ends. The connection has no deadline afterwards.
func handshake(ctx context.Context, conn net.Conn, f func() error) error {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		conn.SetDeadline(time.Unix(1, 0))
	})
	err := f()
	if !stop() {
		<-interrupted
		if err == nil {
			err = ctx.Err()
		}
	}
	if ctx.Err() != nil && err != nil {
		return context.Cause(ctx)
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	return err
}

var errNoUDP = fmt.Errorf("no UDP: %w", errors.ErrUnsupported)
