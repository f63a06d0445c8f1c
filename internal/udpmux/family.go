package udpmux

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// family is the socket for one family of addresses. It survives what happens to the socket.
type family struct {
	mux       *Mux
	network   string
	port      uint16 // written before run begins
	receivers [kinds]atomic.Pointer[receiver]
	reopen    chan struct{} // holds one wish that the socket be replaced

	mu     sync.RWMutex
	socket socket // nil while there is none
}

type receiver struct {
	receive func(p []byte, segment int, from netip.AddrPort)
	flush   func()
}

// socket is one way to read and write UDP packets. Only one goroutine reads; any may write.
type socket interface {
	// read waits for packets and calls deliver with each: one packet, or several of segment bytes and what
	// is left in the last, if segment is not 0. Packets are the socket's again when read returns.
	read(deliver func(p []byte, segment int, from netip.AddrPort)) error
	// send is as Mux.Send, probe as Mux.Probe, but their errors are bare.
	send(p []byte, segment int, to netip.AddrPort) (n int, err error)
	probe(p []byte, to netip.AddrPort) error
	localAddr() net.Addr
	close() error
}

// A socket is opened again after a pause, which doubles with each failure.
const (
	firstPause   = time.Second
	longestPause = time.Minute
)

// wanted reports whether the family may have a socket.
func (f *family) wanted() bool {
	bind := f.mux.config.Bind
	return !bind.IsValid() || bind.Unmap().Is4() == (f.network == "udp4")
}

// listen opens the socket.
func (f *family) listen(ctx context.Context) error {
	conn, err := f.mux.config.Listen(ctx, f.network, f.mux.addressFor(f.port))
	if err != nil {
		return err
	}
	s := newSocket(conn, f.mux.config.NoOffload)
	f.mu.Lock()
	ended := f.mux.ctx.Err() != nil
	if !ended {
		f.socket = s
	}
	f.mu.Unlock()
	if ended {
		s.close()
		return net.ErrClosed
	}
	return nil
}

// current is the socket that is open, or nil.
func (f *family) current() socket {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.socket
}

func (f *family) close() { f.drop(f.current()) }

// drop closes s, which run then replaces, if it is still the socket. It does not wait for that: a socket of the user's own may
// take its time.
func (f *family) drop(s socket) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s != nil && f.socket == s {
		f.socket = nil
		f.mux.running.Go(func() { s.close() })
	}
}

// renew has the socket replaced at once.
func (f *family) renew() {
	select {
	case f.reopen <- struct{}{}:
	default:
	}
	f.close()
}

// run reads the socket until the Mux is closed, and replaces it when it breaks: at once if it had worked
// for long, and later and later if it does not work at all.
func (f *family) run() {
	pause := firstPause
	for {
		if s := f.current(); s != nil {
			began := time.Now()
			f.read(s)
			f.drop(s)
			if time.Since(began) >= longestPause {
				pause = 0
			}
			s.close() // waits until it is closed, as the next one has the same port
		}
		if !f.rest(pause) {
			return
		}
		pause = min(max(2*pause, firstPause), longestPause)
		f.listen(f.mux.ctx) // if it fails, then again after the pause
	}
}

// rest waits for d, or until Reopen is called. It reports whether the Mux is still open.
func (f *family) rest(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-f.mux.ctx.Done():
	case <-f.reopen:
	case <-timer.C:
	}
	return f.mux.ctx.Err() == nil
}

// fatalReads is how many reads in a row may fail: some systems report there that an earlier packet was not
// delivered.
const fatalReads = 100

// read hands out what comes through s until it is closed or broken.
func (f *family) read(s socket) {
	var flush [kinds]bool
	deliver := func(p []byte, segment int, from netip.AddrPort) {
		if from.Port() == 0 {
			return
		}
		if segment <= 0 {
			segment = max(len(p), 1)
		}
		for len(p) > 0 {
			k, ok, n := sameKind(p, segment)
			if ok {
				if r := f.receivers[k].Load(); r != nil {
					r.receive(p[:n:n], segment, from)
					flush[k] = true
				}
			}
			p = p[n:]
		}
	}
	for failures := 0; failures < fatalReads; {
		err := s.read(deliver)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			failures++
		} else {
			failures = 0
		}
		for k := range flush {
			if !flush[k] {
				continue
			}
			flush[k] = false
			if r := f.receivers[k].Load(); r != nil && r.flush != nil {
				r.flush()
			}
		}
	}
}

var errNoSocket = fmt.Errorf("no socket for this family of addresses: %w", syscall.EAFNOSUPPORT)

func (f *family) send(p []byte, segment int, to netip.AddrPort, probe bool) (n int, err error) {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	s := f.current()
	switch {
	case s == nil && f.mux.ctx.Err() != nil:
		return 0, net.ErrClosed
	case s == nil:
		err = errNoSocket
	case segment < 0 || !to.IsValid() || to.Port() == 0:
		err = syscall.EINVAL
	case probe:
		err = s.probe(p, to)
	default:
		n, err = s.send(p, segment, to)
	}
	switch {
	case err == nil:
		return n, nil
	case f.mux.ctx.Err() != nil:
		return n, net.ErrClosed
	case isBroken(err):
		f.drop(s)
	}
	if inner, ok := errors.AsType[*net.OpError](err); ok {
		err = inner.Err
	}
	return n, &net.OpError{Op: "write", Net: f.network, Addr: net.UDPAddrFromAddrPort(to), Err: err}
}

// isBroken reports whether an error of a send means that the socket is of no more use, as after a system
// has slept.
func isBroken(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ENOTCONN) ||
		errors.Is(err, syscall.EBADF) || errors.Is(err, syscall.ENOTSOCK)
}

// addr is the local address of the socket.
func (f *family) addr() (netip.AddrPort, bool) {
	s := f.current()
	if s == nil {
		return netip.AddrPort{}, false
	}
	a := addrPort(s.localAddr())
	return a, a.IsValid()
}
