package udpmux_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/udpmux"
)

// fakeConn is a socket whose reads give what is put into them.
type fakeConn struct {
	net.PacketConn
	reads  chan any // a packet, or an error
	closed chan struct{}
	addr   *net.UDPAddr
	write  func() error
	slow   time.Duration // that Close takes
}

func newFakeConn(port int) *fakeConn {
	return &fakeConn{
		reads: make(chan any), closed: make(chan struct{}), addr: &net.UDPAddr{IP: net.IPv4zero, Port: port},
		write: func() error { return nil },
	}
}

func (c *fakeConn) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case <-c.closed:
		return 0, nil, net.ErrClosed
	case r := <-c.reads:
		if err, ok := r.(error); ok {
			return 0, nil, err
		}
		return copy(b, r.(string)), &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1}, nil
	}
}

func (c *fakeConn) WriteTo(b []byte, _ net.Addr) (int, error) { return len(b), c.write() }
func (c *fakeConn) LocalAddr() net.Addr                       { return c.addr }

func (c *fakeConn) Close() error {
	time.Sleep(c.slow)
	close(c.closed)
	return nil
}

var noIPv6 = &net.OpError{Op: "listen", Net: "udp6", Err: os.NewSyscallError("socket", syscall.EAFNOSUPPORT)}

// fakeNetwork listens on IPv4 alone, with fakeConns.
type fakeNetwork struct {
	mu     sync.Mutex
	began  time.Time
	opened []time.Duration // when a socket was asked for, since began
	conns  []*fakeConn
	fault  error // of the next attempts
}

func (n *fakeNetwork) listen(_ context.Context, network, addr string) (net.PacketConn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if network == "udp6" {
		return nil, noIPv6
	}
	n.opened = append(n.opened, time.Since(n.began))
	if n.fault != nil {
		return nil, n.fault
	}
	if len(n.conns) > 0 && addr != ":4711" {
		return nil, errors.New("another port")
	}
	n.conns = append(n.conns, newFakeConn(4711))
	return n.conns[len(n.conns)-1], nil
}

func (n *fakeNetwork) last() *fakeConn {
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.conns[len(n.conns)-1]
}

// since begins to note attempts, which from now on end with fault, and returns those noted before.
func (n *fakeNetwork) since(fault error) []time.Duration {
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	opened := n.opened
	n.opened, n.began, n.fault = nil, time.Now(), fault
	return opened
}

// fail has n reads of the socket fail.
func (n *fakeNetwork) fail(reads int) {
	c := n.last()
	for range reads {
		select {
		case c.reads <- errors.New("port unreachable"):
		case <-c.closed:
		}
	}
}

// A socket that breaks is replaced on the same port, later and later while it does not work, and at once
// when it is known that the network changed.
func TestBrokenSocketIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, m, send := openMux(t)
		got := collect(m, udpmux.KRPC)
		works := func() {
			t.Helper()
			n.last().reads <- "d1:y1:q1:q4:ping"
			require.Equal(t, "d1:y1:q1:q4:ping", (<-got).p)
		}
		works()
		for range 50 {
			n.fail(99)
			works()
		}
		require.Len(t, n.since(errors.New("no buffers")), 1, "it was not broken")

		n.fail(100)
		synctest.Wait()
		require.Empty(t, m.Addrs())
		require.ErrorContains(t, send(), "no socket for this family")
		time.Sleep(200 * time.Second)
		s := time.Second
		require.Equal(t, []time.Duration{1 * s, 3 * s, 7 * s, 15 * s, 31 * s, 63 * s, 123 * s, 183 * s}, n.since(nil))

		m.Reopen()
		works()
		require.Equal(t, []time.Duration{0}, n.since(nil))

		time.Sleep(time.Hour)
		n.since(nil)
		n.fail(100)
		require.Equal(t, []time.Duration{0}, n.since(nil), "one that had worked for long is replaced at once")
		works()

		time.Sleep(time.Hour)
		n.since(nil)
		n.last().write = func() error { return os.NewSyscallError("sendto", syscall.EPIPE) }
		require.ErrorIs(t, send(), syscall.EPIPE)
		require.Equal(t, []time.Duration{0}, n.since(nil))
		works()
		require.NoError(t, send())
	})
}

// openMux opens a Mux that closes with the test. send sends a packet by it.
func openMux(t *testing.T) (n *fakeNetwork, m *udpmux.Mux, send func() error) {
	n = new(fakeNetwork)
	m = udpmux.New(udpmux.Config{Listen: n.listen})
	t.Cleanup(func() { m.Close() })
	require.NoError(t, m.Open(t.Context(), 0))
	return n, m, func() error { return sendError(m, []byte("d1:y1:q1:q4:ping"), netip.MustParseAddrPort("10.0.0.1:1")) }
}

// A socket that hangs in a write is closed, which ends the write, and replaced. Senders hold locks, for which Close of a client waits.
func TestWriteThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, m, send := openMux(t)
		hanging := n.last()
		hanging.write = func() error {
			<-hanging.closed
			return net.ErrClosed
		}
		began := time.Now()
		require.ErrorIs(t, send(), net.ErrClosed)
		require.Equal(t, 3*time.Second, time.Since(began))
		time.Sleep(time.Second)
		require.NotSame(t, hanging, n.last())
		require.NoError(t, send())

		slow := n.last()
		slow.write = func() error {
			time.Sleep(2 * time.Second)
			return nil
		}
		_, err := m.Send(make([]byte, 10), 1, netip.MustParseAddrPort("10.0.0.1:1"))
		require.NoError(t, err, "each packet may take its time")
	})
}

// A socket that is slow to close holds up nothing that sends packets, and is replaced once it is closed.
func TestCloseThatIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, _, send := openMux(t)
		broken := n.last()
		broken.slow = time.Hour
		broken.write = func() error { return os.NewSyscallError("sendto", syscall.EPIPE) }
		began := time.Now()
		require.ErrorIs(t, send(), syscall.EPIPE)
		require.ErrorContains(t, send(), "no socket for this family")
		require.Zero(t, time.Since(began))
		time.Sleep(time.Hour - time.Second)
		require.Same(t, broken, n.last())
		time.Sleep(2 * time.Second)
		require.NotSame(t, broken, n.last())
		require.NoError(t, send())
	})
}

// A family that this machine lacks is no fault, but one whose port is taken is.
func TestOpenNeedsOneFamily(t *testing.T) {
	inUse := &net.OpError{Op: "listen", Net: "udp6", Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}
	denied := &net.OpError{Op: "listen", Net: "udp4", Err: os.NewSyscallError("bind", syscall.EACCES)}
	for _, c := range []struct {
		name     string
		v4, v6   error
		port     uint16
		attempts int
		err      error
	}{
		{"both", nil, nil, 7, 1, nil},
		{"no IPv6", nil, noIPv6, 7, 1, nil},
		{"no IPv4", noIPv6, nil, 7, 1, nil},
		{"IPv6 port taken", nil, inUse, 7, 1, inUse},
		{"IPv6 port taken, any will do", nil, inUse, 0, 16, inUse},
		{"neither", denied, noIPv6, 7, 1, denied},
	} {
		synctest.Test(t, func(t *testing.T) {
			attempts, open := 0, 0
			m := udpmux.New(udpmux.Config{Listen: func(_ context.Context, network, _ string) (net.PacketConn, error) {
				err := c.v4
				if network == "udp6" {
					attempts++
					err = c.v6
				}
				if err != nil {
					return nil, err
				}
				open++
				return newFakeConn(7), nil
			}})
			require.ErrorIs(t, m.Open(t.Context(), c.port), c.err, c.name)
			require.Equal(t, c.attempts, attempts, c.name)
			if c.err == nil {
				require.Len(t, m.Addrs(), open, c.name)
			} else {
				require.Empty(t, m.Addrs(), c.name)
			}
			require.NoError(t, m.Close())
		})
	}
}
