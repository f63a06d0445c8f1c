// Package proxy connects to other hosts through a proxy: with SOCKS 5 for TCP and UDP (RFC 1928, 1929), or with
// HTTP CONNECT for TCP only. Host names are always resolved by the proxy, so no DNS query bypasses it.
//
// A Proxy has no state but its configuration. The caller closes each connection and each UDP association.
// Everything may be used from any goroutine.
//
// Most of this package is for UDP, which the SOCKS 5 client of golang.org/x/net/proxy lacks.
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

// A Proxy connects to other hosts through a proxy server.
type Proxy struct {
	scheme string // "socks5" or "http"
	addr   string // host and port of the proxy
	user   *url.Userinfo
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	listen func(ctx context.Context, network, addr string) (net.PacketConn, error)
}

// New returns the proxy at a URL. The scheme is socks5, socks5h or http. The default port is 1080 for SOCKS and 80
// for HTTP. The URL may contain a user and a password. The Proxy calls dial to connect to the proxy server, and listen,
// with port 0, to open the socket of a UDP association. New calls neither.
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

// String returns the scheme and address of the proxy, without the user.
func (p *Proxy) String() string { return p.scheme + "://" + p.addr }

// Dial connects to a host and port through the proxy. network is "tcp", "tcp4", "tcp6", "udp", "udp4" or "udp6". The
// digit is ignored, because a request to a proxy has no field for the family. For UDP, writes go to addr
// and reads return packets from addr; if addr has a host name, from any host with its port. The error for UDP matches
// errors.ErrUnsupported in the same cases as that of ListenPacket.
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

// connect opens a TCP connection to a target through the proxy.
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

// ListenPacket opens a UDP association. The proxy sends and receives its packets on a port that the proxy chooses.
// WriteTo of the returned connection accepts any net.Addr whose String is a host and a port; the host is an IP address
// or a name. ReadFrom returns the IP address of the sender, or its name if the proxy reports a name. After the proxy has
// ended the association, both methods fail with an error that matches net.ErrClosed.
//
// network and addr are ignored. They give ListenPacket the signature of net.ListenConfig.ListenPacket.
//
// The error matches errors.ErrUnsupported if the proxy does not support UDP, or does not allow it to this user.
func (p *Proxy) ListenPacket(ctx context.Context, network, addr string) (net.PacketConn, error) {
	a, err := p.associate(ctx)
	if err != nil {
		return nil, fmt.Errorf("listen for UDP by proxy %s: %w", p, err)
	}
	return a, nil
}

// A target is a host and a port to connect or send to.
type target struct {
	ip   netip.Addr // unmapped; invalid if the host is a name
	name string
	port uint16
}

// maxName is the length in bytes of the longest name that fits in a SOCKS request.
const maxName = 255

// parseTarget parses "host:port". A port of 0 and an address with a zone are errors.
func parseTarget(addr string) (target, error) {
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return target{}, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil || port == 0 {
		return target{}, fmt.Errorf("invalid port: %q", service)
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case err == nil && ip.Zone() != "":
		return target{}, fmt.Errorf("address with a zone: %s", ip)
	case err == nil:
		return target{ip: ip.Unmap(), port: uint16(port)}, nil
	case host == "" || len(host) > maxName:
		return target{}, fmt.Errorf("invalid host name: %q", host)
	}
	for _, c := range []byte(host) {
		if c <= ' ' || c == 0x7f {
			return target{}, fmt.Errorf("invalid host name: %q", host)
		}
	}
	return target{name: host, port: uint16(port)}, nil
}

// String returns "host:port".
func (t target) String() string {
	if t.ip.IsValid() {
		return netip.AddrPortFrom(t.ip, t.port).String()
	}
	return net.JoinHostPort(t.name, strconv.Itoa(int(t.port)))
}

// Network returns "udp". With it a target that has a name is a net.Addr.
func (t target) Network() string { return "udp" }

func (t target) packetAddr() net.Addr {
	if t.ip.IsValid() {
		return net.UDPAddrFromAddrPort(netip.AddrPortFrom(t.ip, t.port))
	}
	return t
}

// handshake calls f. When ctx ends, reads and writes of f on conn fail. conn has no deadline afterwards.
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
