package simnet

import (
	"cmp"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// Tapper listens in on the connections of a host. It is called under the network's mutex.
type Tapper interface {
	Tap(*Conn) Tap // a connection is made
}

// Tap hears what one end of a connection writes and reads. It is called under the network's mutex.
type Tap interface {
	Writing(is bool) // a Write begins, or ends
	Wrote(b []byte)
	Read(b []byte)
	Ended() // this end is closed
}

// Conn is one end of a connection.
type Conn struct {
	host          *Host
	local, remote netip.AddrPort
	in, out       *pipe
	tap           Tap // nil is none
	accepted      bool
	closed        bool
	readAtMost    int
	readBy        deadline
	writeBy       deadline
}

// connect makes the two ends of a connection. The caller holds n.mu.
func (n *Network) connect(a, b *Host, from, to netip.AddrPort) (dialled, accepted *Conn) {
	ab, ba := n.pipe(a, b), n.pipe(b, a)
	dialled = &Conn{host: a, local: from, remote: to, in: ba, out: ab}
	accepted = &Conn{host: b, local: to, remote: from, in: ab, out: ba, accepted: true}
	for _, c := range []*Conn{dialled, accepted} {
		c.readBy.cond, c.writeBy.cond = c.in.canRead, c.out.canWrite
		c.readBy.net, c.writeBy.net = n, n
		if c.host.Plan != nil {
			c.out.fault = c.host.Plan()
			c.readAtMost = c.out.fault.ReadAtMost
		}
		c.out.reset = c.reset
		if c.host.Tap != nil {
			c.tap = c.host.Tap.Tap(c)
		}
		n.conns[c] = true
	}
	return dialled, accepted
}

func (c *Conn) Read(b []byte) (int, error) {
	if err := c.host.fail("read"); err != nil {
		return 0, c.opError("read", err)
	}
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if c.readAtMost > 0 && len(b) > c.readAtMost {
		b = b[:c.readAtMost]
	}
	p := c.in
	for {
		switch {
		case c.closed:
			return 0, c.opError("read", net.ErrClosed)
		case c.readBy.expired():
			return 0, c.opError("read", os.ErrDeadlineExceeded)
		case len(p.arrived) > 0 || len(b) == 0:
			n := p.pull(b)
			if c.tap != nil {
				c.tap.Read(b[:n])
			}
			return n, nil
		case p.readErr != nil:
			return 0, c.opError("read", p.readErr)
		case p.eof:
			return 0, io.EOF
		}
		p.canRead.Wait()
	}
}

func (c *Conn) Write(b []byte) (int, error) {
	if err := c.host.fail("write"); err != nil {
		return 0, c.opError("write", err)
	}
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if c.tap != nil {
		c.tap.Writing(true)
		defer c.tap.Writing(false)
	}
	p := c.out
	written := 0
	for {
		switch {
		case c.closed || p.fin:
			return written, c.opError("write", net.ErrClosed)
		case c.writeBy.expired():
			return written, c.opError("write", os.ErrDeadlineExceeded)
		case p.writeErr != nil:
			return written, c.opError("write", p.writeErr)
		}
		n := p.push(b[written:])
		if c.tap != nil {
			c.tap.Wrote(b[written : written+n])
		}
		written += n
		if written == len(b) {
			return written, nil
		}
		p.canWrite.Wait()
	}
}

// Close ends the connection: what was written still arrives, what arrives from now on is lost, and the
// other end's writes fail after the latency.
func (c *Conn) Close() (err error) {
	if why := c.host.fail("close"); why != nil {
		defer func() { err = cmp.Or(err, c.opError("close", why)) }()
	}
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.shut()
	c.finish()
	p := c.in
	p.deaf, p.arrived = true, nil
	c.host.net.After(delay(p.to, p.from), func() {
		if !p.from.cut && !p.to.cut {
			p.failWrite(syscall.EPIPE)
		}
	})
	return nil
}

// CloseWrite ends what this end sends. It may still read.
func (c *Conn) CloseWrite() error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	c.finish()
	return nil
}

// The caller holds c.host.net.mu.
func (c *Conn) finish() {
	if p := c.out; !p.fin && p.writeErr == nil {
		p.fin = true
		p.first.send(segment{fin: true})
	}
	c.out.canWrite.Broadcast()
}

// shut ends the connection for its own host. The caller holds c.host.net.mu.
func (c *Conn) shut() {
	c.closed = true
	if c.tap != nil {
		c.tap.Ended()
	}
	delete(c.host.net.conns, c)
	c.in.canRead.Broadcast()
	c.out.canWrite.Broadcast()
}

// Reset ends the connection with a reset: this end at once, the other after the latency. What was under
// way is lost.
func (c *Conn) Reset() {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	c.reset()
}

// The caller holds c.host.net.mu.
func (c *Conn) reset() {
	if c.closed {
		return
	}
	in, out := c.in, c.out
	in.failRead(syscall.ECONNRESET)
	out.failWrite(syscall.ECONNRESET)
	c.host.net.After(delay(out.from, out.to), func() {
		if !out.from.cut && !out.to.cut {
			out.failRead(syscall.ECONNRESET)
			in.failWrite(syscall.ECONNRESET)
		}
	})
}

// Remote is the address of the other end, an IPv4 address as such.
func (c *Conn) Remote() netip.AddrPort { return c.remote }

func (c *Conn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.local) }

// RemoteAddr is the address of the other end. Of an accepted connection it has an IPv4 address in its IPv6
// form, as from a socket that listens for both.
func (c *Conn) RemoteAddr() net.Addr {
	a := net.TCPAddrFromAddrPort(c.remote)
	if c.accepted {
		a.IP = a.IP.To16()
	}
	return a
}

func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *Conn) SetReadDeadline(t time.Time) error  { return c.setDeadline(&c.readBy, t) }
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.writeBy, t) }

func (c *Conn) setDeadline(d *deadline, t time.Time) error {
	if err := c.host.fail("set deadline"); err != nil {
		return c.opError("set", err)
	}
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	d.set(t)
	return nil
}

func (c *Conn) opError(op string, err error) error {
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		err = os.NewSyscallError(op, errno)
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
