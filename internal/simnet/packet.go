package simnet

import (
	"cmp"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// packetConn is a UDP socket of a Host. Datagrams take the latency of the path; bandwidth is not counted,
// for they are few and small. A datagram to an address without a socket is lost.
type packetConn struct {
	host    *Host
	addr    netip.AddrPort
	arrived []datagram
	sentTo  map[netip.AddrPort]bool // behind a firewall: whose datagrams are let in
	ready   *sync.Cond
	readBy  deadline
	closed  bool
}

type datagram struct {
	b    []byte
	from netip.AddrPort
}

// ListenPacket has the signature of net.ListenPacket. An address without a host part is the host's own; port
// 0 is any.
func (h *Host) ListenPacket(network, addr string) (net.PacketConn, error) {
	if err := h.fail("listen"); err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	at, err := h.local(network, addr)
	if err == nil && h.net.packets[at] != nil {
		err = os.NewSyscallError("bind", syscall.EADDRINUSE)
	}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	c := &packetConn{host: h, addr: at, ready: sync.NewCond(&h.net.mu)}
	c.readBy.net, c.readBy.cond = h.net, c.ready
	h.net.packets[at] = c
	return c, nil
}

func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	if err := c.host.fail("read packet"); err != nil {
		return 0, nil, c.opError("read", err)
	}
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, nil, c.opError("read", net.ErrClosed)
		case c.readBy.expired():
			return 0, nil, c.opError("read", os.ErrDeadlineExceeded)
		case len(c.arrived) > 0:
			d := c.arrived[0]
			c.arrived = c.arrived[1:]
			return copy(b, d.b), net.UDPAddrFromAddrPort(d.from), nil
		}
		c.ready.Wait()
	}
}

func (c *packetConn) WriteTo(b []byte, to net.Addr) (int, error) {
	if err := c.host.fail("write packet"); err != nil {
		return 0, c.opError("write", err)
	}
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	addr, ok := to.(*net.UDPAddr)
	switch {
	case c.closed:
		return 0, c.opError("write", net.ErrClosed)
	case !ok:
		return 0, c.opError("write", syscall.EINVAL)
	}
	at := addr.AddrPort()
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	if c.host.guarded {
		if c.sentTo == nil {
			c.sentTo = make(map[netip.AddrPort]bool)
		}
		c.sentTo[at] = true
	}
	d := datagram{b: append([]byte(nil), b...), from: c.addr}
	if peer := c.host.net.packets[at]; peer != nil && !c.host.cut {
		c.host.net.After(delay(c.host, peer.host), func() {
			if !peer.closed && !peer.host.cut && (!peer.host.guarded || peer.sentTo[d.from]) {
				peer.arrived = append(peer.arrived, d)
				peer.ready.Broadcast()
			}
		})
	}
	return len(b), nil
}

func (c *packetConn) Close() (err error) {
	if why := c.host.fail("close"); why != nil {
		defer func() { err = cmp.Or(err, c.opError("close", why)) }()
	}
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.shut()
	return nil
}

// The caller holds c.host.net.mu.
func (c *packetConn) shut() {
	c.closed = true
	delete(c.host.net.packets, c.addr)
	c.ready.Broadcast()
}

func (c *packetConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.addr) }

func (c *packetConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

func (c *packetConn) SetReadDeadline(t time.Time) error {
	if err := c.host.fail("set deadline"); err != nil {
		return c.opError("set", err)
	}
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	c.readBy.set(t)
	return nil
}

// SetWriteDeadline does nothing: a write never waits.
func (c *packetConn) SetWriteDeadline(time.Time) error { return nil }

func (c *packetConn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "udp", Addr: c.LocalAddr(), Err: err}
}
