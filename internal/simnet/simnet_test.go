package simnet_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/stretchr/testify/require"
)

// connect returns both ends of a connection from a to a listener on b.
func connect(t testing.TB, a, b *simnet.Host) (dialled, accepted *simnet.Conn) {
	l, err := b.Listen("tcp", ":0")
	require.NoError(t, err)
	defer l.Close()
	d, err := a.Dial(t.Context(), "tcp", l.Addr().String())
	require.NoError(t, err)
	c, err := l.Accept()
	require.NoError(t, err)
	return d.(*simnet.Conn), c.(*simnet.Conn)
}

// noise is n bytes, the same ones each time.
func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// within requires that a duration is as expected, but for a tolerance given in parts of it.
func within(t *testing.T, want, got time.Duration, tolerance float64) {
	t.Helper()
	require.InDelta(t, want.Seconds(), got.Seconds(), want.Seconds()*tolerance)
}

func TestAddresses(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		a, b := n.NewHost("10.0.0.1", 0, 0, 0), n.NewHost("10.0.0.7", 0, 0, 0)
		l, err := b.Listen("tcp", ":6881")
		require.NoError(t, err)
		_, err = b.Listen("tcp4", "0.0.0.0:6881")
		require.ErrorIs(t, err, syscall.EADDRINUSE)
		_, err = b.Listen("tcp6", "[::]:6881")
		require.ErrorIs(t, err, syscall.EADDRNOTAVAIL)
		d, err := a.Dial(t.Context(), "tcp", "10.0.0.7:6881")
		require.NoError(t, err)
		c, err := l.Accept()
		require.NoError(t, err)
		require.Equal(t, "10.0.0.7:6881", d.RemoteAddr().String())
		require.Equal(t, d.LocalAddr().String(), c.RemoteAddr().String())
		require.True(t, c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Is4In6())
		conns, listeners := b.Open()
		require.Equal(t, []int{1, 1}, []int{conns, listeners})
		require.NoError(t, c.Close())
		require.NoError(t, l.Close())
		require.ErrorIs(t, c.Close(), net.ErrClosed)
		conns, listeners = b.Open()
		require.Zero(t, conns+listeners)
	})
}

func TestDial(t *testing.T) {
	for name, c := range map[string]struct {
		addr  string
		takes time.Duration
		err   error
	}{
		"a listener":                      {"10.0.0.2:1", 100 * time.Millisecond, nil},
		"a port without a listener":       {"10.0.0.2:2", 60 * time.Millisecond, syscall.ECONNREFUSED},
		"an address without a host":       {"10.0.0.3:1", 5 * time.Second, context.DeadlineExceeded},
		"a host that was unplugged":       {"10.0.0.4:1", 5 * time.Second, context.DeadlineExceeded},
		"its own, without a listener":     {"10.0.0.1:1", 60 * time.Millisecond, syscall.ECONNREFUSED},
		"a host whose listener is closed": {"10.0.0.2:5", 60 * time.Millisecond, syscall.ECONNREFUSED},
	} {
		t.Run(name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				a := n.NewHost("10.0.0.1", 0, 0, 30*time.Millisecond)
				b := n.NewHost("10.0.0.2", 0, 0, 20*time.Millisecond)
				gone := n.NewHost("10.0.0.4", 0, 0, 0)
				for _, addr := range []string{":1", ":5"} {
					l, err := b.Listen("tcp", addr)
					require.NoError(t, err)
					if addr == ":5" {
						l.Close()
					}
				}
				gone.Listen("tcp", ":1")
				gone.Unplug()
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				start := time.Now()
				_, err := a.Dial(ctx, "tcp", c.addr)
				require.ErrorIs(t, err, c.err)
				require.Equal(t, c.takes, time.Since(start))
			})
		})
	}
}

// Bytes arrive in order, unharmed, and as fast as the slowest link allows.
func TestThroughput(t *testing.T) {
	const MB = 1e6
	for name, c := range map[string]struct {
		up, down   float64
		delay      time.Duration
		readAtMost int
		size       int
		want       time.Duration
	}{
		"bound by the uplink":     {up: 2 * MB, down: 9 * MB, delay: 10 * time.Millisecond, size: 20 * MB, want: 10 * time.Second},
		"bound by the downlink":   {up: 9 * MB, down: 2 * MB, delay: 10 * time.Millisecond, size: 20 * MB, want: 10 * time.Second},
		"a long path":             {up: 2 * MB, delay: 300 * time.Millisecond, size: 20 * MB, want: 10*time.Second + 300*time.Millisecond},
		"a modem":                 {up: 5000, delay: 50 * time.Millisecond, size: 50_000, want: 10 * time.Second},
		"tiny reads":              {up: 5000, delay: 50 * time.Millisecond, size: 50_000, readAtMost: 7, want: 10 * time.Second},
		"nothing but the latency": {delay: 250 * time.Millisecond, size: 2 * MB, want: 250 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				a, b := n.NewHost("10.0.0.1", c.up, 0, c.delay), n.NewHost("10.0.0.2", 0, c.down, 0)
				b.Plan = func() simnet.Fault { return simnet.Fault{ReadAtMost: c.readAtMost} }
				from, to := connect(t, a, b)
				data := noise(c.size)
				start := time.Now()
				go func() {
					for p := data; len(p) > 0; { // in pieces of odd sizes
						k := min(len(p), 16397)
						from.Write(p[:k])
						p = p[k:]
					}
					from.Close()
				}()
				got, err := io.ReadAll(to)
				require.NoError(t, err)
				require.True(t, bytes.Equal(data, got))
				within(t, c.want, time.Since(start), 0.02)
				require.Equal(t, int64(c.size), a.Sent())
				require.Equal(t, int64(c.size), b.Received())
			})
		})
	}
}

// Connections share a link equally, however much they write at a time, and a short message is not held up
// by the bulk of another connection.
func TestFairness(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		seed := n.NewHost("10.0.0.1", 1e6, 0, 5*time.Millisecond)
		var took [4]time.Duration
		start := time.Now()
		var wg sync.WaitGroup
		for i := range took {
			leech := n.NewHost("10.0.1."+string(rune('1'+i)), 0, []float64{0, 0, 0, 100e3}[i], 5*time.Millisecond)
			from, to := connect(t, seed, leech)
			wg.Go(func() {
				b := make([]byte, []int{2e6, 300, 16 << 10, 16 << 10}[i])
				for left := 2_000_000; left > 0; left -= len(b) {
					from.Write(b[:min(left, len(b))])
				}
				from.Close()
			})
			wg.Go(func() {
				io.Copy(io.Discard, to)
				took[i] = time.Since(start)
			})
		}
		from, to := connect(t, seed, n.NewHost("10.0.2.1", 0, 0, 5*time.Millisecond))
		wg.Go(func() {
			time.Sleep(2 * time.Second)
			sent := time.Now()
			from.Write([]byte("short"))
			io.ReadFull(to, make([]byte, 5))
			require.Less(t, time.Since(sent), 100*time.Millisecond)
		})
		wg.Wait()
		// The one behind a slow line takes 20 s; the others share what it leaves.
		for _, d := range took[:3] {
			within(t, 6670*time.Millisecond, d, 0.05)
		}
		within(t, 20*time.Second, took[3], 0.02)
	})
}

func TestBackPressure(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		a, b := n.NewHost("10.0.0.1", 1e6, 0, 0), n.NewHost("10.0.0.2", 0, 0, 0)
		a.Buffer = 100_000
		from, to := connect(t, a, b)
		require.NoError(t, from.SetWriteDeadline(time.Now().Add(time.Minute)))
		k, err := from.Write(make([]byte, 1e6))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, 100_000, k)
		// A read makes room.
		require.NoError(t, from.SetWriteDeadline(time.Time{}))
		go io.ReadFull(to, make([]byte, 200_000))
		k, err = from.Write(make([]byte, 150_000))
		require.NoError(t, err)
		require.Equal(t, 150_000, k)
	})
}

func TestDeadlines(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		a, b := n.NewHost("10.0.0.1", 0, 0, 0), n.NewHost("10.0.0.2", 0, 0, 0)
		from, to := connect(t, a, b)
		start := time.Now()
		b1 := make([]byte, 1)
		for range 3 { // however often it is put off, the last one counts
			require.NoError(t, to.SetReadDeadline(start.Add(time.Second)))
			require.NoError(t, to.SetReadDeadline(start.Add(time.Minute)))
		}
		_, err := to.Read(b1)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		var timeout net.Error
		require.True(t, errors.As(err, &timeout) && timeout.Timeout())
		require.Equal(t, time.Minute, time.Since(start))
		// A deadline that is brought forward ends a wait; one that has passed can be lifted.
		require.NoError(t, to.SetReadDeadline(time.Now().Add(time.Hour)))
		time.AfterFunc(time.Second, func() { to.SetReadDeadline(time.Now()) })
		_, err = to.Read(b1)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, time.Minute+time.Second, time.Since(start))
		require.NoError(t, to.SetDeadline(time.Time{}))
		from.Write(b1)
		_, err = to.Read(b1)
		require.NoError(t, err)
	})
}

func TestEnds(t *testing.T) {
	type pair struct {
		from, to *simnet.Conn
		sender   *simnet.Host
	}
	read := func(c *simnet.Conn) (int64, error) { return io.Copy(io.Discard, c) }
	for name, c := range map[string]struct {
		plan simnet.Fault // of the sender
		end  func(pair)
		got  int64 // bytes of 10,000 that arrive
		err  error
	}{
		"closed":              {end: func(p pair) { p.from.Close() }, got: 10_000},
		"half-closed":         {end: func(p pair) { p.from.CloseWrite() }, got: 10_000},
		"reset":               {end: func(p pair) { p.from.Reset() }, got: 0, err: syscall.ECONNRESET},
		"reset on plan":       {plan: simnet.Fault{ResetAfter: 3000}, got: 3000, err: syscall.ECONNRESET},
		"half-closed on plan": {plan: simnet.Fault{FinAfter: 3000}, got: 3000},
		"stalled": {plan: simnet.Fault{StallAfter: 3000}, end: func(p pair) {
			time.AfterFunc(time.Hour, func() { p.to.SetReadDeadline(time.Now()) })
		}, got: 3000, err: os.ErrDeadlineExceeded},
		"unplugged": {end: func(p pair) {
			p.sender.Unplug()
			time.AfterFunc(time.Hour, func() { p.to.SetReadDeadline(time.Now()) })
		}, got: 0, err: os.ErrDeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				a, b := n.NewHost("10.0.0.1", 100e3, 0, 10*time.Millisecond), n.NewHost("10.0.0.2", 0, 0, 10*time.Millisecond)
				a.Plan = func() simnet.Fault { return c.plan }
				from, to := connect(t, a, b)
				_, err := from.Write(make([]byte, 10_000))
				require.NoError(t, err)
				if c.end != nil {
					c.end(pair{from, to, a})
				}
				got, err := read(to)
				require.ErrorIs(t, err, c.err)
				require.Equal(t, c.got, got)
				from.Close()
				to.Close()
			})
		})
	}

	t.Run("a half-closed connection still carries the other way", func(t *testing.T) {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			from, to := connect(t, n.NewHost("10.0.0.1", 0, 0, 0), n.NewHost("10.0.0.2", 0, 0, 0))
			from.CloseWrite()
			_, err := read(to)
			require.NoError(t, err)
			to.Write([]byte("still here"))
			to.Close()
			got, err := io.ReadAll(from)
			require.NoError(t, err)
			require.Equal(t, "still here", string(got))
			_, err = from.Write([]byte{0})
			require.ErrorIs(t, err, net.ErrClosed)
		})
	})
	t.Run("a write after the other end closed fails after the latency", func(t *testing.T) {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			from, to := connect(t, n.NewHost("10.0.0.1", 0, 0, time.Second), n.NewHost("10.0.0.2", 0, 0, time.Second))
			to.Close()
			_, err := from.Write([]byte{0})
			require.NoError(t, err)
			time.Sleep(2 * time.Second)
			synctest.Wait()
			_, err = from.Write([]byte{0})
			require.ErrorIs(t, err, syscall.EPIPE)
			_, err = read(from)
			require.NoError(t, err)
			_, err = to.Read(make([]byte, 1))
			require.ErrorIs(t, err, net.ErrClosed)
		})
	})
}

func TestDatagrams(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		a, b := n.NewHost("10.0.0.1", 0, 0, time.Second), n.NewHost("10.0.0.2", 0, 0, time.Second)
		from, err := a.ListenPacket("udp", ":0")
		require.NoError(t, err)
		to, err := b.ListenPacket("udp4", "10.0.0.2:6969")
		require.NoError(t, err)
		start := time.Now()
		_, err = from.WriteTo([]byte("connect"), to.LocalAddr())
		require.NoError(t, err)
		_, err = from.WriteTo([]byte("lost"), net.UDPAddrFromAddrPort(b.Addr(1)))
		require.NoError(t, err)
		p := make([]byte, 100)
		k, addr, err := to.ReadFrom(p)
		require.NoError(t, err)
		require.Equal(t, "connect", string(p[:k]))
		require.Equal(t, from.LocalAddr().String(), addr.String())
		require.Equal(t, 2*time.Second, time.Since(start))
		to.SetReadDeadline(time.Now().Add(time.Minute))
		_, _, err = to.ReadFrom(p)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		time.AfterFunc(time.Second, func() { from.Close() })
		_, _, err = from.ReadFrom(p)
		require.ErrorIs(t, err, net.ErrClosed)
	})
}

// BenchmarkTransfer measures what it costs to simulate a download.
func BenchmarkTransfer(b *testing.B) {
	const size = 300e6
	b.SetBytes(size)
	for b.Loop() {
		n := simnet.New()
		h, k := n.NewHost("10.0.0.1", 0, 0, 0), n.NewHost("10.0.0.2", 0, 0, 0)
		from, to := connect(b, h, k)
		go func() {
			p := make([]byte, 16397)
			for left := int(size); left > 0; left -= len(p) {
				from.Write(p[:min(left, len(p))])
			}
			from.Close()
		}()
		io.CopyBuffer(io.Discard, struct{ io.Reader }{to}, make([]byte, 64<<10))
		n.Close()
	}
}
