package utp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/memtest"
	"github.com/shoal-go/torrent/internal/utp"
)

func content(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed)}).Read(b)
	return b
}

// exchange has both ends write n bytes and compares what they read.
func exchange(t *testing.T, c1, c2 net.Conn, n int) {
	var all sync.WaitGroup
	for i, ends := range [][2]net.Conn{{c1, c2}, {c2, c1}} {
		want := content(uint64(i), n)
		all.Go(func() {
			k, err := ends[0].Write(want)
			require.NoError(t, err)
			require.Equal(t, n, k)
			require.NoError(t, ends[0].(interface{ CloseWrite() error }).CloseWrite())
		})
		all.Go(func() {
			got, err := io.ReadAll(ends[1])
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got))
		})
	}
	all.Wait()
}

func TestExchange(t *testing.T) {
	for _, loss := range []float64{0, 0.02, 0.2} {
		synctest.Test(t, func(t *testing.T) {
			p := connect(t)
			p.n.set(func() { p.n.loss = loss })
			exchange(t, p.c1, p.c2, 300_000)
			require.NoError(t, p.c1.Close())
			require.NoError(t, p.c2.Close())
			p.n.set(func() { p.n.loss = 0 })
			time.Sleep(5 * time.Minute)
			require.Zero(t, utp.Connections(p.s1))
			require.Zero(t, utp.Connections(p.s2))
			require.NoError(t, p.s1.Close())
			require.NoError(t, p.s2.Close())
		})
	}
}

func TestManyConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t)
		p.n.set(func() { p.n.loss = 0.01 })
		var all sync.WaitGroup
		for i := range 50 {
			c1, c2 := p.another(t)
			if i%2 == 0 {
				c1, c2 = c2, c1
			}
			all.Go(func() {
				exchange(t, c1, c2, 20_000)
				c1.Close()
				c2.Close()
			})
		}
		all.Wait()
	})
}

func TestAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t)
		require.Equal(t, "utp", p.c1.RemoteAddr().Network())
		require.Equal(t, there, p.c1.RemoteAddr().String())
		require.Equal(t, here, p.c1.LocalAddr().String())
		require.Equal(t, here, p.c2.RemoteAddr().String())
		require.Equal(t, there, p.l.Addr().String())
		require.Equal(t, thereAddr, p.c1.RemoteAddr().(utp.Addr).AddrPort())
	})
}

func TestDialIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		s := n.socket(t, here, 0)
		n.socket(t, there, 0)
		began := time.Now()
		_, err := s.Dial(t.Context(), thereAddr)
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		require.EqualError(t, err, "dial utp 10.0.0.2:6881: connection refused")
		require.Equal(t, 2*n.delay, time.Since(began))
	})
}

func TestDialTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		s := n.socket(t, here, 0)
		began := time.Now()
		_, err := s.Dial(t.Context(), thereAddr)
		require.ErrorIs(t, err, syscall.ETIMEDOUT)
		require.Equal(t, 21*time.Second, time.Since(began).Round(time.Millisecond))

		why := errors.New("changed its mind")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(why) })
		_, err = s.Dial(ctx, thereAddr)
		require.ErrorIs(t, err, why)
		_, err = s.Dial(ctx, thereAddr)
		require.ErrorIs(t, err, why)
	})
}

func TestConnectionTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t)
		p.n.set(func() { p.n.cut = true })
		began := time.Now()
		p.c1.Write([]byte("is anybody there?"))
		_, err := p.c1.Read(make([]byte, 10))
		require.ErrorIs(t, err, syscall.ETIMEDOUT)
		require.InDelta(t, 31.5, time.Since(began).Seconds(), 1)
		_, err = p.c1.Write([]byte("no"))
		require.ErrorIs(t, err, syscall.ETIMEDOUT)
	})
}

func TestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t)
		p.c2.Write([]byte("farewell"))
		time.Sleep(time.Second)
		require.NoError(t, p.s2.Close())
		_, err := p.c2.Read(make([]byte, 10))
		require.ErrorIs(t, err, net.ErrClosed)
		b := make([]byte, 100)
		n, err := p.c1.Read(b)
		require.NoError(t, err)
		require.Equal(t, "farewell", string(b[:n]))
		_, err = p.c1.Read(b)
		require.ErrorIs(t, err, syscall.ECONNRESET)
		require.EqualError(t, err, "read utp 10.0.0.1:6881->10.0.0.2:6881: connection reset by peer")
		_, err = p.c1.Write(b)
		require.ErrorIs(t, err, syscall.ECONNRESET)
		require.NoError(t, p.c1.Close())
	})
}

func TestCloseEndsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t)
		var all sync.WaitGroup
		all.Go(func() {
			_, err := p.c1.Read(make([]byte, 10))
			require.ErrorIs(t, err, net.ErrClosed)
		})
		all.Go(func() {
			_, err := p.c1.Write(make([]byte, 10<<20))
			require.ErrorIs(t, err, net.ErrClosed)
		})
		time.Sleep(time.Minute)
		require.NoError(t, p.c1.Close())
		require.ErrorIs(t, p.c1.Close(), net.ErrClosed)
		all.Wait()
		require.ErrorIs(t, p.c1.SetDeadline(time.Time{}), net.ErrClosed)
	})
}

func TestHalfClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t)
		close1 := p.c1.(interface{ CloseWrite() error }).CloseWrite
		p.c1.Write([]byte("a question"))
		require.NoError(t, close1())
		_, err := p.c1.Write([]byte("another"))
		require.ErrorContains(t, err, "closed for writing")
		got, err := io.ReadAll(p.c2)
		require.NoError(t, err)
		require.Equal(t, "a question", string(got))
		time.Sleep(10 * time.Minute)
		p.c2.Write([]byte("an answer"))
		p.c2.Close()
		got, err = io.ReadAll(p.c1)
		require.NoError(t, err)
		require.Equal(t, "an answer", string(got))
	})
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t)
		began := time.Now()
		past := func(err error, after time.Duration) {
			t.Helper()
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			var timeout net.Error
			require.ErrorAs(t, err, &timeout)
			require.True(t, timeout.Timeout())
			require.Equal(t, after, time.Since(began))
			began = time.Now()
		}
		b := make([]byte, 100)
		p.c1.SetReadDeadline(began.Add(time.Second))
		_, err := p.c1.Read(b)
		past(err, time.Second)
		_, err = p.c1.Read(b)
		past(err, 0)

		p.c1.SetWriteDeadline(began.Add(time.Minute))
		n, err := p.c1.Write(make([]byte, 10<<20)) // more than the other end takes unread
		require.Less(t, n, 2<<20)
		past(err, time.Minute)

		// Moved while a caller waits.
		p.c2.SetReadDeadline(began.Add(time.Hour))
		io.ReadFull(p.c2, make([]byte, n))
		began = time.Now()
		time.AfterFunc(time.Second, func() { p.c2.SetReadDeadline(time.Now().Add(time.Second)) })
		_, err = p.c2.Read(b)
		past(err, 2*time.Second)

		p.c1.SetDeadline(time.Time{})
		p.c2.SetDeadline(time.Time{})
		exchange(t, p.c1, p.c2, 1000)
	})
}

func TestListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t)
		_, err := p.s2.Listen()
		require.ErrorContains(t, err, "already listening")
		waiting, err := p.s1.Dial(t.Context(), thereAddr)
		require.NoError(t, err)
		time.Sleep(time.Second)
		go func() {
			time.Sleep(time.Second)
			p.l.Close()
		}()
		accepted, err := p.l.Accept()
		require.NoError(t, err)
		defer accepted.Close()
		_, err = p.l.Accept()
		require.ErrorIs(t, err, net.ErrClosed)
		require.ErrorIs(t, p.l.Close(), net.ErrClosed)
		_, err = p.s1.Dial(t.Context(), thereAddr)
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		exchange(t, waiting, accepted, 1000)
		exchange(t, p.c1, p.c2, 1000) // those that were accepted stay
		p.l, err = p.s2.Listen()
		require.NoError(t, err)
		p.another(t)
	})
}

// Connections that are not accepted are bounded, and closed with the listener.
func TestBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t)
		var conns []net.Conn
		for range 100 {
			c, err := p.s1.Dial(t.Context(), thereAddr)
			require.NoError(t, err)
			conns = append(conns, c)
		}
		time.Sleep(time.Second)
		alive := 0
		for _, c := range conns {
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
				alive++
			}
		}
		require.Equal(t, 64, alive)
		p.l.Close()
		for _, c := range conns {
			c.SetReadDeadline(time.Time{})
			_, err := c.Read(make([]byte, 1))
			require.ErrorIs(t, err, syscall.ECONNRESET)
		}
	})
}

func TestSocketClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t)
		want := content(1, 500_000)
		go func() {
			p.c1.Write(want)
			p.c1.Close()
		}()
		got := make(chan []byte)
		go func() {
			b, _ := io.ReadAll(p.c2)
			got <- b
		}()
		require.True(t, bytes.Equal(want, <-got), "what a closed connection has still to send is delivered")
		require.NoError(t, p.s1.Close())
		require.ErrorIs(t, p.s1.Close(), net.ErrClosed)
		_, err := p.s1.Dial(t.Context(), thereAddr)
		require.ErrorIs(t, err, net.ErrClosed)

		p = connect(t) // and neither end closes it
		require.NoError(t, p.s1.Close())
		_, err = p.c1.Write(want)
		require.ErrorIs(t, err, net.ErrClosed)
	})
}

// An idle connection costs at most 3 KB and no goroutine.
func TestIdleConnections(t *testing.T) {
	const count = 1000
	n := newNetwork()
	n.delay = 0
	synctest.Test(t, func(t *testing.T) {
		s1, s2 := n.socket(t, here, 0), n.socket(t, there, 0)
		l, err := s2.Listen()
		require.NoError(t, err)
		before, goroutines := memtest.Heap(), runtime.NumGoroutine()
		conns := make([]net.Conn, 0, 2*count)
		b := make([]byte, 1000)
		for range count {
			c1, err := s1.Dial(t.Context(), thereAddr)
			require.NoError(t, err)
			c1.Write(b)
			c2, err := l.Accept()
			require.NoError(t, err)
			io.ReadFull(c2, b)
			c2.Write(b)
			io.ReadFull(c1, b)
			conns = append(conns, c1, c2)
		}
		time.Sleep(10 * time.Minute)
		each := int(memtest.Heap()-before) / len(conns)
		fmt.Printf("%d idle connections: %d bytes each, %d goroutines in all\n", len(conns), each, runtime.NumGoroutine()-goroutines)
		if !utp.RaceEnabled {
			require.Less(t, each, 3000)
		}
		require.LessOrEqual(t, runtime.NumGoroutine()-goroutines, 2)
		for _, c := range conns {
			c.Close()
		}
	})
}
