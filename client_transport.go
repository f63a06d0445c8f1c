package torrent

import (
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/sockets"
	"github.com/shoal-go/torrent/internal/tracker"
	"github.com/shoal-go/torrent/internal/udpmux"
	"github.com/shoal-go/torrent/internal/utp"
)

const (
	// dialTimeout bounds one attempt to connect.
	dialTimeout = 5 * time.Second
	// proxyDialTimeout is the same through a proxy, some of which take many hops.
	proxyDialTimeout = 20 * time.Second
	// headStart is how long the first way is tried before the next one starts.
	headStart = 250 * time.Millisecond
)

// A way is the protocol that carries a connection.
type way uint8

const (
	anyWay way = iota // not known yet
	byTCP
	byUTP // BEP 29
)

func (w way) String() string { return [...]string{"", "tcp", "utp"}[w] }

// wayOf returns the way of a connection that a peer made.
func wayOf(conn net.Conn) way {
	if _, ok := conn.RemoteAddr().(utp.Addr); ok {
		return byUTP
	}
	return byTCP
}

// A transport makes connections to peers. It holds the ways by which they are dialled, and a set of listeners. Except
// for Stats, its callers do not know the way of a connection. It may be used from any goroutine.
type transport struct {
	// Fixed before the transport is used; nil is a way that is not available.
	dialTCP func(ctx context.Context, network, addr string) (net.Conn, error)
	dialUTP func(ctx context.Context, addr netip.AddrPort) (net.Conn, error)
	timeout time.Duration // of a dial

	mu        sync.Mutex
	listeners []net.Listener
	closed    bool
}

// dial connects to a peer by one way.
func (t *transport) dial(ctx context.Context, by way, addr netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	if by == byUTP {
		return t.dialUTP(ctx, addr)
	}
	return t.dialTCP(ctx, "tcp", addr.String())
}

// ways returns the ways by which a peer may be dialled, in the order in which they are tried: first the one that
// worked last time, or TCP.
func (t *transport) ways(last way) (ways []way) {
	if t.dialTCP != nil {
		ways = append(ways, byTCP)
	}
	if t.dialUTP != nil {
		ways = append(ways, byUTP)
	}
	if len(ways) == 2 && last == byUTP {
		ways[0], ways[1] = byUTP, byTCP
	}
	return ways
}

// race tries the ways in order. Each starts once the one before it has failed or had its head start. It returns the
// first connection that is made. The others are closed, in goroutines of tasks. The error is that of the first way.
func race(ctx context.Context, ways []way, tasks *sync.WaitGroup, connect func(context.Context, way) (*connection, error)) (*connection, error) {
	if len(ways) == 1 {
		return connect(ctx, ways[0])
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		k   *connection
		way int
		err error
	}
	results := make(chan result, len(ways))
	timer := time.NewTimer(0)
	defer timer.Stop()
	errs := make([]error, len(ways))
	started, ended := 0, 0
	for ended < len(ways) {
		select {
		case <-timer.C:
			if i := started; i < len(ways) {
				started++
				tasks.Go(func() {
					k, err := connect(ctx, ways[i])
					results <- result{k, i, err}
				})
				timer.Reset(headStart)
			}
		case r := <-results:
			ended++
			if errs[r.way] = r.err; r.err == nil || errors.Is(r.err, errSelf) || ctx.Err() != nil {
				tasks.Go(func() { // the other connections are not wanted
					for range started - ended {
						if r := <-results; r.err == nil {
							r.k.Close()
						}
					}
				})
				return r.k, r.err
			}
			timer.Reset(0)
		}
	}
	return nil, errs[0]
}

// add records a listener, which close closes. If close was called before, as by another goroutine than Serve, add closes it.
func (t *transport) add(l net.Listener) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		l.Close()
		return
	}
	t.listeners = append(t.listeners, l)
}

// addr is where peers are accepted, or nil.
func (t *transport) addr() net.Addr {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.listeners) == 0 {
		return nil
	}
	return t.listeners[0].Addr()
}

// close ends accepting.
func (t *transport) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, l := range t.listeners {
		l.Close()
	}
}

const (
	maxHandshakes           = 100 // incoming connections in their handshake
	maxHandshakesPerAddress = 3
	maxRefusals             = 64 // refused connections that are closed while others are accepted
)

// A pendingHandshake is an incoming connection in its handshake.
type pendingHandshake struct {
	peerlist.Handshake
	conn   net.Conn
	ctx    context.Context // ends when the handshake must
	cancel context.CancelFunc
}

// accept takes connections until the listener is closed.
func (c *Client) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err == nil && conn == nil {
			err = errors.New("a listener returned neither a connection nor an error")
		}
		if err == nil {
			c.startHandshake(conn)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		c.log.Warn("accept", "err", err)
		select { // out of file handles, most likely: let some go first
		case <-time.After(tick):
		case <-c.ctx.Done():
			return
		}
	}
}

// startHandshake makes the handshake with a peer that connected.
func (c *Client) startHandshake(conn net.Conn) {
	addr := netaddr.Of(conn.RemoteAddr())
	out := conn
	if addr.IsValid() && c.allows(addr.Addr()) {
		out = c.beginHandshake(&pendingHandshake{Handshake: peerlist.Handshake{Addr: addr.Addr()}, conn: conn}, addr)
	}
	if out == nil {
		return
	}
	// A connection of the user's own may take its time to close. Few do so while others are accepted.
	refuse := func() {
		out.Close()
		c.refusals.Add(-1)
	}
	if c.refusals.Add(1) <= maxRefusals {
		c.tasks.Go(refuse)
	} else {
		refuse()
	}
}

// beginHandshake begins a handshake, unless too many connect at once: then it returns the connection that is to be closed, that of h or
// one of the network that has the most, which makes room.
func (c *Client) beginHandshake(h *pendingHandshake, addr netip.AddrPort) (out net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || !netaddr.IsLocal(h.Addr) && c.handshakes.From(h.Addr) >= maxHandshakesPerAddress {
		return h.conn
	}
	if c.handshakes.Len() >= maxHandshakes {
		shed := c.handshakes.Shed(h.Addr)
		c.handshakes.Remove(shed)
		pending := shed.Owner.(*pendingHandshake)
		pending.cancel() // it may be waiting, and not in a read
		out = pending.conn
	}
	h.ctx, h.cancel = context.WithTimeout(c.ctx, handshakeTimeout)
	h.Owner = h
	c.handshakes.Add(&h.Handshake)
	c.tasks.Go(func() { c.finishHandshake(h, addr) })
	return out
}

// allows reports whether the user allows dealings with an unmapped address.
func (c *Client) allows(a netip.Addr) bool { return c.Allow == nil || c.Allow(a) }

// awaitHandshake waits for the beginning of a handshake and answers it. Nothing else is allocated for the connection
// before that.
func (c *Client) awaitHandshake(h *pendingHandshake, addr netip.AddrPort) (*connection, acceptor, error) {
	until, _ := h.ctx.Deadline()
	h.conn.SetReadDeadline(until)
	begin, err := c.readBeginning(h.conn)
	if err != nil {
		h.conn.Close()
		return nil, acceptor{}, err
	}
	c.mu.Lock()
	h.Spoke = true
	c.mu.Unlock()
	h.conn.SetReadDeadline(time.Time{})
	return c.answerHandshake(h.ctx, h.conn, addr, begin)
}

// closeHandshakes ends all handshakes.
func (c *Client) closeHandshakes() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for h := range c.handshakes.All() {
		c.tasks.Go(func() { h.Owner.(*pendingHandshake).conn.Close() })
	}
}

// finishHandshake waits for the handshake, and hands the connection to the acceptor for its info hash.
func (c *Client) finishHandshake(h *pendingHandshake, addr netip.AddrPort) {
	defer h.cancel()
	k, to, err := c.awaitHandshake(h, addr)
	c.mu.Lock()
	c.handshakes.Remove(&h.Handshake)
	c.mu.Unlock()
	if err != nil {
		c.log.Debug("incoming", "peer", addr, "err", fmt.Errorf("handshake: %w", err))
		return
	}
	if !to.take(k, peerlist.FromIncoming) {
		k.Close()
	}
}

// preparePackets makes everything that uses UDP. No socket is opened before a packet is sent.
func (c *Client) preparePackets() {
	c.mux = udpmux.New(udpmux.Config{Listen: c.sockets.ListenPacket, Bind: c.bindPackets()})
	c.udp, c.pace = tracker.NewUDP(c.sendPacket, c.lookUpFor(sockets.Tracker)), tracker.NewPace()
	c.mux.Handle(udpmux.Tracker, c.udp.Receive, nil)
	if c.NoUTP || c.sockets.NoUDP() != nil {
		return
	}
	o := utp.Config{Network: c.mux, Account: c.account}
	if c.hooks.seed != 0 { // otherwise its numbers cannot be foreseen
		o.Random = mathrand.NewPCG(c.rng.Uint64(), c.rng.Uint64())
	}
	c.utp = utp.NewSocket(o)
	c.mux.HandleRuns(udpmux.UTP, c.utp.Receive, c.utp.Flush)
	c.transport.dialUTP = func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
		err := c.openPackets(ctx)
		if err == nil {
			err = c.sockets.UDPErr()
		}
		if err != nil {
			return nil, err
		}
		return c.utp.Dial(ctx, addr)
	}
}

// bindPackets returns the address that UDP sockets are bound to: Bind, or the address of the TCP listener, or none.
func (c *Client) bindPackets() netip.Addr {
	switch {
	case c.Proxy != nil:
		return netip.Addr{}
	case c.Bind.IsValid():
		return c.sockets.Bind()
	}
	addr, err := netip.ParseAddrPort(c.Listen)
	if err != nil || addr.Addr().IsUnspecified() {
		return netip.Addr{}
	}
	return addr.Addr().Unmap()
}

// listenUTP accepts peers by uTP. If the UDP sockets cannot be opened now, the error says why. Unless there is no TCP either, peers
// are accepted once they are open.
func (c *Client) listenUTP() error {
	err := c.openPackets(c.opens)
	if err != nil && c.NoTCP {
		return err
	}
	l, failed := c.utp.Listen()
	if failed == nil {
		c.acceptFrom(l)
	}
	return errors.Join(err, failed)
}

// openPacketsLater tries to open the UDP sockets until they are open, so that peers can connect by uTP although nothing is sent.
func (c *Client) openPacketsLater() {
	for wait := joinAgain; pause(wait, c.opens.Done()) && c.openPackets(c.opens) != nil; {
		wait = min(2*wait, time.Minute)
	}
}

// packetSockets holds whether the UDP sockets are open.
type packetSockets struct {
	mu      sync.Mutex // taken before the client's
	open    bool
	attempt *attempt // under way; nil if there is none
}

// An attempt is one to open the UDP sockets.
type attempt struct {
	over chan struct{} // closed at its end
	err  error         // why it failed; fixed then
}

// openPackets opens the UDP sockets if they are not open. A goroutine of its own does that, because the user's function may take its
// time: openPackets waits until ctx ends.
func (c *Client) openPackets(ctx context.Context) error {
	if err := c.sockets.NoUDP(); err != nil {
		return unsupported(err)
	}
	a, err := c.packets.begin(c)
	if a == nil {
		return err
	}
	select {
	case <-a.over:
		return a.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// begin returns the attempt that is under way, or begins one. If the sockets are open, or c is closed, it returns nil.
func (p *packetSockets) begin(c *Client) (*attempt, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open || p.attempt != nil {
		return p.attempt, nil
	}
	release, err := c.borrow()
	if err != nil {
		return nil, err
	}
	a := &attempt{over: make(chan struct{})}
	p.attempt = a
	go func() {
		defer release()
		a.err = c.listenPackets()
		p.mu.Lock()
		p.open, p.attempt = a.err == nil, nil
		p.mu.Unlock()
		close(a.over)
	}()
	return a, nil
}

// listenPackets opens the UDP sockets, on the number of the TCP port if it is free.
func (c *Client) listenPackets() error {
	port := c.port()
	if c.NoTCP {
		if _, said, err := net.SplitHostPort(c.Listen); err == nil {
			number, _ := strconv.ParseUint(said, 10, 16)
			port = uint16(number)
		}
	}
	err := c.mux.Open(c.opens, port)
	if errors.Is(err, syscall.EADDRINUSE) && !c.NoTCP {
		err = c.mux.Open(c.opens, 0)
	}
	return err
}

// sendPacket sends one packet. If the system has no room for it, it is lost, as on any link.
func (c *Client) sendPacket(p []byte, to netip.AddrPort) error {
	if err := c.openPackets(c.opens); err != nil {
		return err
	}
	_, err := c.mux.Send(p, 0, to)
	return err
}
