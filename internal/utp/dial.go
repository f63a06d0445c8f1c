package utp

import (
	"context"
	"net"
	"net/netip"
)

// idAttempts bounds the search for a number that no other connection with an address has.
const idAttempts = 100

// Dial makes a connection to an address. The error is a *net.OpError, which matches syscall.ECONNREFUSED if the other
// end refuses, and syscall.ETIMEDOUT if it does not answer.
func (s *Socket) Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "utp", Addr: Addr(addr), Err: err}
	}
	if ctx.Err() != nil {
		return fail(context.Cause(ctx))
	}
	c, err := s.dial(addr)
	if err != nil {
		return fail(err)
	}
	c.mu.Lock()
	dialed := c.dialed
	c.update(s.now())
	c.mu.Unlock()
	select {
	case <-dialed:
	case <-ctx.Done():
		c.discard(context.Cause(ctx))
		return fail(context.Cause(ctx))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.e.state == closed && c.e.err != nil {
		err := c.e.err
		c.e.discard(err)
		c.update(s.now())
		return fail(err)
	}
	return c, nil
}

// dial makes a connection that has sent nothing yet.
func (s *Socket) dial(addr netip.AddrPort) (*conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, net.ErrClosed
	}
	id := uint16(s.random.Uint32())
	for attempt := 0; s.conns[connKey{addr, id}] != nil; attempt++ {
		if attempt == idAttempts {
			return nil, errTooMany
		}
		id = uint16(s.random.Uint32())
	}
	c := s.newConn(addr)
	c.handed = true
	c.dialed = make(chan struct{})
	c.e.dial(id, uint16(s.random.Uint32()), s.now())
	s.conns[connKey{addr, id}] = c
	return c, nil
}
