package utp

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/shoal-go/torrent/internal/account"
)

// conn is a connection, as a net.Conn.
type conn struct {
	s      *Socket
	remote netip.AddrPort
	holder *account.Holder // of what has arrived; nil without an account

	// Guarded by s.mu.
	unconfirmed bool // among those of the Socket

	writing sync.Mutex // held by a Write, so that two do not mix

	// mu guards what follows. It is taken before the Socket's locks.
	mu       sync.Mutex
	e        endpoint // whose identity does not change once packets find it
	readable sync.Cond
	writable sync.Cond
	readers  int // that wait
	writers  int
	readBy   deadline
	writeBy  deadline
	closed   bool          // by its caller
	touched  bool          // Flush will update it
	handed   bool          // accepted, or waiting for that
	dialed   chan struct{} // closed when the connection is made or has failed; nil if it was not dialled

	// Guarded by s.clock.mu.
	wake time.Duration // when the clock calls tick
	slot int           // in the clock's heap

	scheduled time.Duration // what wake was set to last; 0 is not at all
	unacked   int           // what the Socket was told that it holds to be sent
	lingers   int           // of that, what is held by a connection that its caller closed
}

// receive takes packets from the beginning of p, as long as they have the id of pk, the first. It returns how many
// bytes it took.
func (c *conn) receive(p []byte, segment int, pk *packet, now time.Duration) (n int) {
	id := pk.id
	c.mu.Lock()
	defer c.mu.Unlock()
	for n < len(p) {
		end := min(n+segment, len(p))
		if pk.parse(p[n:end]) {
			if pk.id != id {
				break
			}
			c.e.receive(pk, now)
		}
		n = end
	}
	if !c.touched {
		c.touched = true
		c.s.touch(c)
	}
	c.charge()
	return n
}

// roomForMore is how much room there has to be again before the other end is told to send as it did before there was none.
const roomForMore = 256 << 10

// charge says how much has arrived and is not read, and takes less from now on if that is too much. The caller holds c.mu.
func (c *conn) charge() {
	if c.holder == nil {
		return
	}
	in := &c.e.in
	if c.e.state == closed && in.lent == 0 {
		c.holder.Leave()
		return
	}
	was := in.full
	if was { // until there is room for more than this, or the other end would send that, too, and most of it in vain
		in.full = !c.holder.Grow(account.Incoming, in.held()+roomForMore)
	}
	if !c.holder.Grow(account.Incoming, in.held()) {
		in.full = true
	}
	if was && !in.full && c.e.state == connected && in.news() {
		c.e.acks.now = true
	}
}

// errNoRoom is the error of a connection that was ended because it had the most unread data and was read the least.
var errNoRoom = errors.New("too much waits to be read")

// giveWay ends the connection, and drops unread data.
func (c *conn) giveWay() { c.discard(errNoRoom) }

// update sends pending packets, and wakes the callers that wait for a change. The caller holds c.mu.
func (c *conn) update(now time.Duration) {
	e := &c.e
	e.transmit(now, c)
	if e.state != dialing && c.dialed != nil {
		close(c.dialed)
		c.dialed = nil
	}
	if e.state == connected && !c.handed {
		c.handed = true
		if !c.s.handOver(c) {
			e.discard(errReset)
			e.transmit(now, c)
		}
	}
	if c.readers > 0 && (e.in.directed > 0 || e.in.ready > 0 || e.in.complete || e.state == closed) {
		c.readable.Broadcast()
	}
	c.countUnacknowledged()
	if c.writers > 0 && (e.state == closed || e.out.waiting <= writeLimit/2 && e.out.room()) {
		c.writable.Broadcast()
	}
	if e.state == closed {
		if !c.handed {
			e.in.dropReady() // it came along with the reset, and no caller will read it
		}
		c.s.mu.Lock()
		c.s.forget(c)
		c.s.clock.cancel(c)
		c.s.mu.Unlock()
	}
	c.charge()
	if due := e.due(); due != 0 && (c.scheduled == 0 || due < c.scheduled) {
		c.scheduled = due
		c.s.clock.schedule(c, due)
	}
}

// countUnacknowledged reports to the Socket how much unsent and unacknowledged data is held, and learns whether more is
// allowed. The caller holds c.mu.
func (c *conn) countUnacknowledged() {
	holds := c.e.out.held()
	c.s.unacknowledged.change(c.unacked, holds)
	c.unacked = holds
	if c.e.abandoned {
		c.s.unacknowledged.lingering.Add(int64(holds - c.lingers))
		c.lingers = holds
	}
	c.e.out.bound = c.s.unacknowledged.bound()
}

// tick is called by the clock.
func (c *conn) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.scheduled = 0
	now := c.s.now()
	if due := c.e.due(); due != 0 && due <= now {
		c.e.tick(now)
	}
	c.update(now)
}

func (c *conn) send(p []byte, segment int) (int, error) {
	return c.s.network.Send(p, segment, c.remote)
}
func (c *conn) probe(p []byte) error { return c.s.network.Probe(p, c.remote) }

// drop ends a connection that was not confirmed, without a word.
func (c *conn) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.e.state == answering {
		c.e.end(errTimedOut)
	}
	c.update(c.s.now())
}

// abort ends the connection at once.
func (c *conn) abort(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.e.abort(err)
	c.update(c.s.now())
}

// discard ends the connection at once, and drops unread data.
func (c *conn) discard(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.e.discard(err)
	c.update(c.s.now())
}

func (c *conn) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		now := c.s.now()
		switch {
		case c.closed:
			return 0, c.error("read", net.ErrClosed)
		case c.readBy.past():
			return 0, c.error("read", os.ErrDeadlineExceeded)
		case len(b) == 0:
			return 0, nil
		}
		if n := c.e.read(b, now); n > 0 {
			c.wasRead(n)
			if c.e.acks.now {
				c.update(now)
			}
			return n, nil
		}
		switch {
		case c.e.eof():
			return 0, io.EOF
		case c.e.state == closed:
			return 0, c.error("read", c.e.err)
		}
		c.readers++
		direct := c.e.in.await(b)
		c.readable.Wait()
		c.readers--
		if !direct {
			continue
		}
		if n := c.e.in.awaited(); n > 0 {
			now = c.s.now()
			c.e.wasRead(now)
			c.wasRead(n)
			if c.e.acks.now {
				c.update(now)
			}
			return n, nil
		}
	}
}

// wasRead brings the account up to date after a read. The caller holds c.mu.
func (c *conn) wasRead(n int) {
	if c.holder != nil {
		c.holder.Gave(int64(n))
	}
	c.charge()
}

func (c *conn) Write(b []byte) (n int, err error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return n, c.error("write", net.ErrClosed)
		case c.writeBy.past():
			return n, c.error("write", os.ErrDeadlineExceeded)
		case c.e.state == closed:
			return n, c.error("write", c.e.err)
		case c.e.finished:
			return n, c.error("write", errFinished)
		}
		now := c.s.now()
		c.countUnacknowledged()
		if k := c.e.write(b[n:], now); k > 0 {
			n += k
			c.update(now)
		}
		if n == len(b) {
			return n, nil
		}
		c.writers++
		c.writable.Wait()
		c.writers--
	}
}

var errFinished = errors.New("closed for writing")

// CloseWrite closes the connection for writing. Data from the other end can still be read.
func (c *conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return c.error("close", net.ErrClosed)
	case c.e.state == closed:
		return c.error("close", c.e.err)
	}
	c.e.closeWrite()
	c.update(c.s.now())
	c.writable.Broadcast()
	return nil
}

// Close closes the connection. Written data is still delivered, as long as the other end takes it, unless closed
// connections hold too much already.
func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.error("close", net.ErrClosed)
	}
	c.closed = true
	c.readBy.stop()
	c.writeBy.stop()
	now := c.s.now()
	c.e.close(now)
	c.update(now)
	if c.lingers > 0 && c.s.unacknowledged.crowded() {
		c.e.abort(nil)
		c.update(now)
	}
	c.readable.Broadcast()
	c.writable.Broadcast()
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.s.localAddr(c.remote) }
func (c *conn) RemoteAddr() net.Addr { return Addr(c.remote) }

// error wraps err with the operation and the addresses of the connection.
func (c *conn) error(op string, err error) error {
	if err == nil {
		err = errReset // it ended without us, and there is more to come
	}
	return &net.OpError{Op: op, Net: "utp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// deadline is the time after which a read or a write fails.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) past() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
	}
}

// set wakes the callers that wait on cond at t.
func (d *deadline) set(t time.Time, cond *sync.Cond) {
	d.at = t
	cond.Broadcast()
	if t.IsZero() {
		d.stop()
		return
	}
	wait := time.Until(t)
	if d.timer == nil {
		d.timer = time.AfterFunc(wait, func() {
			cond.L.Lock()
			defer cond.L.Unlock()
			cond.Broadcast()
		})
	} else {
		d.timer.Reset(wait)
	}
}

func (c *conn) SetDeadline(t time.Time) error {
	return c.setDeadlines(t, true, true)
}
func (c *conn) SetReadDeadline(t time.Time) error {
	return c.setDeadlines(t, true, false)
}
func (c *conn) SetWriteDeadline(t time.Time) error {
	return c.setDeadlines(t, false, true)
}

func (c *conn) setDeadlines(t time.Time, read, write bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.error("set", net.ErrClosed)
	}
	if read {
		c.readBy.set(t, &c.readable)
	}
	if write {
		c.writeBy.set(t, &c.writable)
	}
	return nil
}
