package torrent

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// fault is what befalls one connection, seen from the host that plans it. A count of bytes is of what
// that host sends; 0 is never.
type fault struct {
	resetAfter int64 // then both ends see a reset
	stallAfter int64 // then nothing comes any more, and nobody is told
	finAfter   int64 // then the stream ends, the other way stays open
	readAtMost int   // bytes that one Read of this host returns
}

// end is the count of bytes after which nothing more arrives, 0 if there is none.
func (f *fault) end() int64 {
	at := int64(0)
	for _, n := range []int64{f.resetAfter, f.stallAfter, f.finAfter} {
		if n > 0 && (at == 0 || n < at) {
			at = n
		}
	}
	return at
}

// simPipe is one way of a connection:
//
//	Write → sender's uplink → path → latency → receiver's downlink → arrived → Read
//
// At most window bytes are under way between Write and Read; a Write beyond that waits.
type simPipe struct {
	net      *simNet
	from, to *simHost
	first    *simFlow // where Write puts segments
	segment  int      // bytes of a full segment
	window   int
	under    int   // bytes written and not yet read
	sent     int64 // bytes delivered to arrived

	arrived  []simSegment
	eof      bool  // arrived ends with the end of the stream
	readErr  error // what Read says once arrived is empty
	writeErr error // what Write says
	fin      bool  // nothing may be written any more
	canRead  *sync.Cond
	canWrite *sync.Cond
	deaf     bool // the reading end is closed; what arrives is dropped
	fault    fault
	reset    func()   // resets the connection
	free     [][]byte // buffers of full segments that were read
}

func (n *simNet) pipe(from, to *simHost) *simPipe {
	p := &simPipe{net: n, from: from, to: to, canRead: sync.NewCond(&n.mu), canWrite: sync.NewCond(&n.mu)}
	path := n.between(from, to)
	down := &simFlow{link: to.down, next: p.arrive}
	fly := func(s simSegment) { n.after(path.delay, func() { down.send(s) }) }
	if path.delay == 0 {
		fly = down.send
	}
	p.first = &simFlow{link: from.up, next: fly}
	slowest := slower(from.up.rate, to.down.rate)
	if path.link != nil {
		slowest = slower(slowest, path.link.rate)
		between := &simFlow{link: path.link, next: fly}
		p.first.next = between.send
	}
	// A segment takes about 15 ms on the slowest link, so that latency stays true where it matters
	// and a fast link is simulated in few steps.
	p.segment = 64 << 10
	if slowest > 0 {
		p.segment = min(max(int(slowest/64), 1460), 64<<10)
	}
	// As the buffers of TCP tune themselves: twice what is on its way in a round trip.
	p.window = from.buffer
	if p.window == 0 {
		p.window = 4 << 20
		if slowest > 0 {
			p.window = min(max(int(2*slowest*(2*path.delay).Seconds()), 64<<10), 4<<20)
		}
	}
	return p
}

// slower is the lesser of two rates of which 0 is no limit.
func slower(a, b float64) float64 {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// push takes as much of b as the window has room for. The caller holds mu.
func (p *simPipe) push(b []byte) int {
	n := min(len(b), p.window-p.under)
	b = b[:n]
	p.under += n
	for len(b) > 0 {
		// Small messages written one by one travel together while they wait for the link.
		if q := p.first.queue; len(q) > 0 {
			last := &q[len(q)-1]
			if room := min(p.segment-len(last.b), len(b)); room > 0 {
				last.b = append(last.b, b[:room]...)
				b = b[room:]
				continue
			}
		}
		k := min(len(b), p.segment)
		var s []byte
		switch i := len(p.free) - 1; {
		case k < 1024: // a message or two, not bulk
		case i >= 0:
			s, p.free = p.free[i], p.free[:i]
		default:
			s = make([]byte, 0, p.segment)
		}
		p.first.send(simSegment{b: append(s, b[:k]...)})
		b = b[k:]
	}
	return n
}

// arrive is the end of a segment's way. The caller holds mu.
func (p *simPipe) arrive(s simSegment) {
	if p.from.cut || p.to.cut || p.readErr != nil || p.eof {
		return
	}
	if s.fin {
		p.eof = true
		p.canRead.Broadcast()
		return
	}
	if p.deaf {
		p.under -= len(s.b)
		p.canWrite.Broadcast()
		return
	}
	end := p.fault.end()
	if end > 0 {
		s.b = s.b[:min(int64(len(s.b)), max(0, end-p.sent))]
	}
	p.sent += int64(len(s.b))
	if len(s.b) > 0 {
		p.arrived = append(p.arrived, s)
		p.canRead.Broadcast()
	}
	if end == 0 || p.sent < end {
		return
	}
	switch end {
	case p.fault.finAfter:
		p.eof = true
	case p.fault.resetAfter:
		p.failRead(syscall.ECONNRESET)
		p.reset()
	}
}

// pull moves what has arrived to b. The caller holds mu.
func (p *simPipe) pull(b []byte) int {
	total := 0
	for len(b) > 0 && len(p.arrived) > 0 {
		s := &p.arrived[0]
		n := copy(b, s.b[s.read:])
		b, total = b[n:], total+n
		if s.read += n; s.read < len(s.b) {
			break
		}
		if cap(s.b) == p.segment {
			p.free = append(p.free, s.b[:0])
		}
		p.arrived[0] = simSegment{}
		p.arrived = p.arrived[1:]
	}
	p.under -= total
	if p.under <= p.window*2/3 {
		p.canWrite.Broadcast()
	}
	return total
}

// failRead breaks the pipe for its reader, who still gets what has arrived. The caller holds mu.
func (p *simPipe) failRead(err error) {
	if p.readErr == nil {
		p.readErr = err
	}
	p.canRead.Broadcast()
}

// failWrite breaks the pipe for its writer. The caller holds mu.
func (p *simPipe) failWrite(err error) {
	if p.writeErr == nil {
		p.writeErr = err
	}
	p.canWrite.Broadcast()
}

// simTapper listens in on the connections of a host. The network's mutex is held.
type simTapper interface {
	tap(*simConn) simTap
}

// simTap hears what one end of a connection writes and reads. The network's mutex is held.
type simTap interface {
	writing(is bool) // a Write begins, or ends
	wrote(b []byte)
	read(b []byte)
	ended()
}

// simConn is one end of a connection.
type simConn struct {
	host          *simHost
	local, remote netip.AddrPort
	in, out       *simPipe
	tap           simTap // nil if nobody listens in
	accepted      bool
	closed        bool
	readAtMost    int
	readBy        simDeadline
	writeBy       simDeadline
}

// connect makes the two ends of a connection. The caller holds mu.
func (n *simNet) connect(a, b *simHost, from, to netip.AddrPort) (dialled, accepted *simConn) {
	ab, ba := n.pipe(a, b), n.pipe(b, a)
	dialled = &simConn{host: a, local: from, remote: to, in: ba, out: ab}
	accepted = &simConn{host: b, local: to, remote: from, in: ab, out: ba, accepted: true}
	for _, c := range []*simConn{dialled, accepted} {
		c.readBy.cond, c.writeBy.cond = c.in.canRead, c.out.canWrite
		c.readBy.net, c.writeBy.net = n, n
		if c.host.plan != nil {
			c.out.fault = c.host.plan()
			c.readAtMost = c.out.fault.readAtMost
		}
		c.out.reset = c.reset
		if c.host.tap != nil {
			c.tap = c.host.tap.tap(c)
		}
		n.conns[c] = true
	}
	return dialled, accepted
}

func (c *simConn) Read(b []byte) (int, error) {
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
				c.tap.read(b[:n])
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

func (c *simConn) Write(b []byte) (int, error) {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if c.tap != nil {
		c.tap.writing(true)
		defer c.tap.writing(false)
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
			c.tap.wrote(b[written : written+n])
		}
		written += n
		if written == len(b) {
			return written, nil
		}
		p.canWrite.Wait()
	}
}

// Close ends the connection: what was written still arrives, what arrives from now on is lost, and
// the other end's writes fail once it has heard.
func (c *simConn) Close() error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.shut()
	c.finish()
	p := c.in
	p.deaf, p.arrived = true, nil
	c.host.net.after(c.host.net.between(p.to, p.from).delay, func() {
		if !p.from.cut && !p.to.cut {
			p.failWrite(syscall.EPIPE)
		}
	})
	return nil
}

// CloseWrite ends what this end sends; it may go on reading.
func (c *simConn) CloseWrite() error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	c.finish()
	return nil
}

func (c *simConn) finish() {
	if p := c.out; !p.fin && p.writeErr == nil {
		p.fin = true
		p.first.send(simSegment{fin: true})
	}
	c.out.canWrite.Broadcast()
}

// shut makes the end useless for its own host. The caller holds mu.
func (c *simConn) shut() {
	c.closed = true
	if c.tap != nil {
		c.tap.ended()
	}
	delete(c.host.net.conns, c)
	c.in.canRead.Broadcast()
	c.out.canWrite.Broadcast()
}

// Reset ends the connection as a lost socket does: this end at once, the other after the latency,
// and what was under way is lost.
func (c *simConn) Reset() {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	c.reset()
}

func (c *simConn) reset() {
	if c.closed {
		return
	}
	in, out := c.in, c.out
	in.failRead(syscall.ECONNRESET)
	out.failWrite(syscall.ECONNRESET)
	c.host.net.after(c.host.net.between(out.from, out.to).delay, func() {
		if !out.from.cut && !out.to.cut {
			out.failRead(syscall.ECONNRESET)
			in.failWrite(syscall.ECONNRESET)
		}
	})
}

// Remote is the address of the other end.
func (c *simConn) Remote() netip.AddrPort { return c.remote }

func (c *simConn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.local) }

// RemoteAddr of an accepted connection has an IPv4 address in its IPv6 form, as a socket has that
// listens for both.
func (c *simConn) RemoteAddr() net.Addr {
	a := net.TCPAddrFromAddrPort(c.remote)
	if c.accepted {
		a.IP = a.IP.To16()
	}
	return a
}

func (c *simConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *simConn) SetReadDeadline(t time.Time) error  { return c.setDeadline(&c.readBy, t) }
func (c *simConn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.writeBy, t) }

func (c *simConn) setDeadline(d *simDeadline, t time.Time) error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	d.set(t)
	return nil
}

func (c *simConn) opError(op string, err error) error {
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		err = os.NewSyscallError(op, errno)
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// simDeadline wakes those who wait on cond when it passes. However often it is put off, there is
// one event under way for it.
type simDeadline struct {
	net   *simNet
	cond  *sync.Cond
	at    time.Time     // zero is never
	event time.Duration // of the earliest event under way, 0 for none
}

func (d *simDeadline) expired() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// set changes the deadline. The caller holds mu.
func (d *simDeadline) set(t time.Time) {
	d.at = t
	d.arm()
	d.cond.Broadcast()
}

func (d *simDeadline) arm() {
	if d.at.IsZero() || d.expired() {
		return
	}
	at := d.at.Sub(d.net.began)
	if d.event != 0 && d.event <= at {
		return
	}
	d.event = at
	d.net.after(time.Until(d.at), func() {
		if d.event == at {
			d.event = 0
			d.arm()
		}
		d.cond.Broadcast()
	})
}

// simListener accepts connections to one address of a host.
type simListener struct {
	host    *simHost
	addr    netip.AddrPort
	pending []*simConn
	ready   *sync.Cond
	closed  bool
}

// listen has the signature of net.Listen. An address without a host is the host's own.
func (h *simHost) listen(network, addr string) (net.Listener, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	at, err := h.local(network, addr)
	if err == nil && h.net.listeners[at] != nil {
		err = os.NewSyscallError("bind", syscall.EADDRINUSE)
	}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	l := &simListener{host: h, addr: at, ready: sync.NewCond(&h.net.mu)}
	h.net.listeners[at] = l
	return l, nil
}

// local is the host's own address for one given to a listen function. The caller holds mu.
func (h *simHost) local(network, addr string) (netip.AddrPort, error) {
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
	return h.addr(uint16(number)), nil
}

func (l *simListener) Accept() (net.Conn, error) {
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

func (l *simListener) Close() error {
	l.host.net.mu.Lock()
	defer l.host.net.mu.Unlock()
	if l.closed {
		return &net.OpError{Op: "close", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
	}
	l.shut()
	return nil
}

func (l *simListener) shut() {
	l.closed = true
	delete(l.host.net.listeners, l.addr)
	for _, c := range l.pending {
		c.reset()
		c.shut()
	}
	l.pending = nil
	l.ready.Broadcast()
}

func (l *simListener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

// dial has the signature of net.Dialer.DialContext. It takes a round trip; an address that no host
// has, or whose host is cut off, never answers; a port without a listener refuses.
func (h *simHost) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return h.dialFrom(ctx, 0, network, addr)
}

// dialFrom is dial with a choice of the local port; 0 is any.
func (h *simHost) dialFrom(ctx context.Context, port uint16, network, addr string) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	to, err := netip.ParseAddrPort(addr)
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
	dialled, accepted := h.net.connect(h, l.host, h.addr(port), to)
	l.pending = append(l.pending, accepted)
	l.ready.Broadcast()
	return dialled, nil
}

// roundTrip waits as long as an answer from an address takes, which may be for ever.
func (h *simHost) roundTrip(ctx context.Context, to netip.AddrPort) error {
	h.net.mu.Lock()
	l, answers := h.net.listeners[to], h.net.known[to.Addr()] && !h.cut
	rtt := 2 * h.delay
	if l != nil {
		rtt = 2 * h.net.between(h, l.host).delay
		answers = answers && !l.host.cut
	}
	h.net.mu.Unlock()
	var answered <-chan struct{}
	if answers {
		answered = h.net.pause(rtt)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-answered:
		return nil
	}
}
