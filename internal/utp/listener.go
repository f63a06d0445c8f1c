package utp

import (
	"errors"
	"net"
	"sync"
)

var errTooMany = errors.New("too many connections to this address")

// listener gives out the connections that other ends made.
type listener struct {
	s      *Socket
	queue  chan *conn
	once   sync.Once
	closed chan struct{}
}

// Listen begins to accept connections, which it did not before. There is one listener at a time.
func (s *Socket) Listen() (net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fail := func(err error) (net.Listener, error) { return nil, &net.OpError{Op: "listen", Net: "utp", Err: err} }
	switch {
	case s.closed:
		return fail(net.ErrClosed)
	case s.listener != nil:
		return fail(errors.New("already listening"))
	}
	s.listener = &listener{s: s, queue: make(chan *conn, backlog), closed: make(chan struct{})}
	return s.listener, nil
}

// handOver gives a connection to the listener. It reports whether that takes it.
func (s *Socket) handOver(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.confirm(c)
	if s.listener == nil || s.conns[connKey{c.remote, c.e.recvID}] != c {
		return false // nothing accepts, or it had to make room: packets no longer reach it
	}
	select {
	case s.listener.queue <- c:
		return true
	default:
		return false
	}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
	default:
		select {
		case c := <-l.queue:
			return c, nil
		case <-l.closed:
		}
	}
	return nil, &net.OpError{Op: "accept", Net: "utp", Addr: l.Addr(), Err: net.ErrClosed}
}

// Close ends Accept. Connections that were not accepted are closed; those that were stay.
func (l *listener) Close() error {
	err := error(&net.OpError{Op: "close", Net: "utp", Addr: l.Addr(), Err: net.ErrClosed})
	l.once.Do(func() {
		err = nil
		l.s.mu.Lock()
		l.s.listener = nil // so that nothing is added to the queue any more
		l.s.mu.Unlock()
		close(l.closed)
		for {
			select {
			case c := <-l.queue:
				c.discard(net.ErrClosed)
				continue
			default:
			}
			return
		}
	})
	return err
}

func (l *listener) Addr() net.Addr {
	for _, a := range l.s.network.Addrs() {
		return Addr(a)
	}
	return Addr{}
}
