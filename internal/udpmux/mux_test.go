package udpmux_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/udpmux"
)

// wrapped hides that a socket is the system's own.
type wrapped struct{ net.PacketConn }

// ways are the ways to read and write that a Mux chooses from.
var ways = map[string]udpmux.Config{
	"offload":    {},
	"no offload": {NoOffload: true},
	"plain": {Listen: func(ctx context.Context, network, addr string) (net.PacketConn, error) {
		c, err := new(net.ListenConfig).ListenPacket(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return wrapped{c}, nil
	}},
}

func eachWay(t *testing.T, test func(t *testing.T, c udpmux.Config)) {
	for name, c := range ways {
		t.Run(name, func(t *testing.T) { test(t, c) })
	}
}

func open(t testing.TB, c udpmux.Config) *udpmux.Mux {
	m := udpmux.New(c)
	require.NoError(t, m.Open(t.Context(), 0))
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

// loopback is where a Mux is reached on this machine, once a family.
func loopback(t testing.TB, m *udpmux.Mux) (addrs []netip.AddrPort) {
	for _, a := range m.Addrs() {
		ip := netip.MustParseAddr("127.0.0.1")
		if a.Addr().Is6() {
			if _, err := net.ListenPacket("udp6", "[::1]:0"); err != nil {
				continue
			}
			ip = netip.IPv6Loopback()
		}
		addrs = append(addrs, netip.AddrPortFrom(ip, a.Port()))
	}
	require.NotEmpty(t, addrs)
	return addrs
}

type packet struct {
	p    string
	from netip.AddrPort
}

func collect(m *udpmux.Mux, k udpmux.Kind) <-chan packet {
	got := make(chan packet, 1000)
	m.Handle(k, func(p []byte, from netip.AddrPort) { got <- packet{string(p), from} }, nil)
	return got
}

func sendAll(t testing.TB, m *udpmux.Mux, p []byte, segment int, to netip.AddrPort) {
	n, err := m.Send(p, segment, to)
	require.NoError(t, err)
	require.Equal(t, len(p), n)
}

func sendError(m *udpmux.Mux, p []byte, to netip.AddrPort) error {
	_, err := m.Send(p, 0, to)
	return err
}

func TestKindsReachTheirHandlers(t *testing.T) {
	eachWay(t, func(t *testing.T, c udpmux.Config) {
		a, b := open(t, c), open(t, c)
		from := loopback(t, a)
		for i, to := range loopback(t, b) {
			krpc, utp, tracker := collect(b, udpmux.KRPC), collect(b, udpmux.UTP), collect(b, udpmux.Tracker)
			sendAll(t, a, []byte("nonsense for all"), 0, to)
			sendAll(t, a, nil, 0, to)
			sendAll(t, a, []byte("d1:y1:q1:q4:ping"), 0, to)
			sendAll(t, a, []byte("\x41 a uTP packet"), 0, to)
			sendAll(t, a, []byte("\x00\x00\x00\x01 of a tracker"), 0, to)
			require.Equal(t, packet{"d1:y1:q1:q4:ping", from[i]}, <-krpc)
			require.Equal(t, packet{"\x41 a uTP packet", from[i]}, <-utp)
			require.Equal(t, packet{"\x00\x00\x00\x01 of a tracker", from[i]}, <-tracker)
		}
	})
}

func TestBothFamiliesShareAPort(t *testing.T) {
	m := open(t, udpmux.Config{})
	addrs := m.Addrs()
	if len(addrs) == 2 {
		require.Equal(t, addrs[0].Port(), addrs[1].Port())
	}
	other := udpmux.New(udpmux.Config{})
	require.ErrorIs(t, other.Open(t.Context(), addrs[0].Port()), syscall.EADDRINUSE)
	require.Empty(t, other.Addrs())
	require.NoError(t, other.Open(t.Context(), 0), "may be opened again")
	require.NoError(t, other.Close())
	require.ErrorIs(t, other.Open(t.Context(), 0), net.ErrClosed)
}

func TestBind(t *testing.T) {
	ip := netip.MustParseAddr("127.0.0.1")
	m := open(t, udpmux.Config{Bind: ip})
	require.Len(t, m.Addrs(), 1)
	require.Equal(t, ip, m.Addrs()[0].Addr())
	_, err := m.Send([]byte("d1:y1:q1:q4:ping"), 0, netip.MustParseAddrPort("[::1]:1234"))
	require.ErrorContains(t, err, "write udp6 [::1]:1234: no socket for this family")
}

// A run of packets arrives as the packets it is made of.
func TestRun(t *testing.T) {
	eachWay(t, func(t *testing.T, c udpmux.Config) {
		a, b := open(t, c), open(t, c)
		for _, to := range loopback(t, b) {
			got := collect(b, udpmux.UTP)
			for _, size := range []struct{ segment, packets, last int }{
				{1400, 44, 1400}, {1400, 44, 17}, {1472, 2, 9}, {548, 64, 548}, {548, 65, 100}, {100, 200, 10}, {1400, 1, 1400}, {40000, 3, 20},
			} {
				var run []byte
				var want []string
				for i := range size.packets {
					n := size.segment
					if i == size.packets-1 {
						n = size.last
					}
					p := append([]byte{0x01, byte(i)}, bytes.Repeat([]byte{byte(rand.Int())}, n-2)...)
					run, want = append(run, p...), append(want, string(p))
				}
				sendAll(t, a, run, size.segment, to)
				for i := range want {
					require.Equal(t, want[i], (<-got).p, "%v: packet %d", size, i)
				}
			}
		}
	})
}

func TestFlushFollowsPackets(t *testing.T) {
	eachWay(t, func(t *testing.T, c udpmux.Config) {
		a, b := open(t, c), open(t, c)
		to := loopback(t, b)[0]
		received, flushed := 0, make(chan int)
		b.Handle(udpmux.UTP, func([]byte, netip.AddrPort) { received++ }, func() { flushed <- received })
		sendAll(t, a, bytes.Repeat([]byte{0x01}, 50*1000), 1000, to)
		for n := 0; n < 50; {
			more := <-flushed
			require.Greater(t, more, n)
			n = more
		}
	})
}

func TestAnErrorOfOneDestinationEndsNothing(t *testing.T) {
	eachWay(t, func(t *testing.T, c udpmux.Config) {
		a, b := open(t, c), open(t, c)
		got := collect(b, udpmux.KRPC)
		closed := netip.MustParseAddrPort("127.0.0.1:1") // a port that no test is given
		for range 200 {
			for _, err := range []error{
				sendError(a, make([]byte, 70_000), loopback(t, b)[0]), // too long
				sendError(a, []byte("d1:y1:q1:q4:ping"), netip.MustParseAddrPort("10.0.0.1:0")),
				sendError(a, []byte("d1:y1:q1:q4:ping"), netip.AddrPort{}),
			} {
				_, ok := errors.AsType[*net.OpError](err)
				require.True(t, ok, "%v", err)
			}
			a.Send([]byte("d1:y1:q1:q4:ping"), 0, closed)
		}
		sendAll(t, a, []byte("d1:y1:q1:q4:ping"), 0, loopback(t, b)[0])
		require.Equal(t, "d1:y1:q1:q4:ping", (<-got).p)
	})
}

func TestProbe(t *testing.T) {
	a, b := open(t, udpmux.Config{}), open(t, udpmux.Config{})
	for _, to := range loopback(t, b) {
		got := collect(b, udpmux.UTP)
		err := a.Probe([]byte("\x01 a probe"), to)
		if runtime.GOOS != "linux" {
			require.ErrorIs(t, err, errors.ErrUnsupported)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, "\x01 a probe", (<-got).p)
	}
	plain := open(t, ways["plain"])
	require.ErrorIs(t, plain.Probe([]byte("\x01 a probe"), loopback(t, b)[0]), errors.ErrUnsupported)
}

func TestReopen(t *testing.T) {
	eachWay(t, func(t *testing.T, c udpmux.Config) {
		var mu sync.Mutex
		opened := make(map[string]int)
		listen := c.Listen
		if listen == nil {
			listen = new(net.ListenConfig).ListenPacket
		}
		c.Listen = func(ctx context.Context, network, addr string) (net.PacketConn, error) {
			mu.Lock()
			defer mu.Unlock()
			opened[network]++
			return listen(ctx, network, addr)
		}
		a, b := open(t, c), open(t, ways["offload"])
		got := collect(b, udpmux.KRPC)
		before := a.Addrs()
		a.Reopen()
		require.Eventually(t, func() bool { return len(a.Addrs()) == len(before) }, 2*time.Minute, time.Millisecond)
		require.Equal(t, before, a.Addrs())
		sendAll(t, a, []byte("d1:y1:q1:q4:ping"), 0, loopback(t, b)[0])
		require.Equal(t, before[0].Port(), (<-got).from.Port())
		mu.Lock()
		defer mu.Unlock()
		require.GreaterOrEqual(t, opened["udp4"], 2)
	})
}

func TestClose(t *testing.T) {
	m := udpmux.New(udpmux.Config{})
	require.NoError(t, m.Open(t.Context(), 0))
	to := loopback(t, m)[0]
	require.NoError(t, m.Close())
	require.NoError(t, m.Close())
	require.Empty(t, m.Addrs())
	_, err := m.Send([]byte("d1:y1:q1:q4:ping"), 0, to)
	require.ErrorIs(t, err, net.ErrClosed)
	require.NoError(t, udpmux.New(udpmux.Config{}).Close(), "never opened")
}

// Handlers that answer a packet call Open before they send, and Close waits for them.
func TestCloseWhileHandlersOpen(t *testing.T) {
	m := udpmux.New(udpmux.Config{})
	require.NoError(t, m.Open(t.Context(), 0))
	called := make(chan struct{})
	var once sync.Once
	m.Handle(udpmux.KRPC, func([]byte, netip.AddrPort) {
		once.Do(func() {
			close(called)
			for m.Open(context.Background(), 0) == nil {
				runtime.Gosched()
			}
			for range 10_000 { // Close has begun, and by and by it waits for this handler
				m.Open(context.Background(), 0)
				runtime.Gosched()
			}
		})
	}, nil)
	sendAll(t, m, []byte("d1:y1:q1:q4:ping"), 0, loopback(t, m)[0])
	<-called
	closed := make(chan error)
	go func() { closed <- m.Close() }()
	select {
	case err := <-closed:
		require.NoError(t, err)
	case <-time.After(time.Minute):
		t.Fatal("Close and the handler wait for each other")
	}
}

// Nothing is allocated for a packet, neither to send it nor to receive it.
func TestNoAllocation(t *testing.T) {
	if runtime.GOOS != "linux" || raceEnabled {
		t.Skip("counted on Linux, without the race detector")
	}
	for _, name := range []string{"offload", "no offload"} {
		a, b := open(t, ways[name]), open(t, ways[name])
		for _, to := range loopback(t, b) {
			got := make(chan int, 1)
			for _, p := range [][]byte{bytes.Repeat([]byte{0x01}, 1400), bytes.Repeat([]byte{0x01}, 40*1400)} {
				want, received := len(p), 0
				b.Handle(udpmux.UTP, func(p []byte, _ netip.AddrPort) {
					if received += len(p); received == want {
						received = 0
						got <- want
					}
				}, nil)
				n := testing.AllocsPerRun(100, func() {
					a.Send(p, 1400, to)
					<-got
				})
				require.Zero(t, n, "%s, %d bytes to %v", name, len(p), to)
			}
		}
	}
}

func BenchmarkLoopback(b *testing.B) {
	for _, name := range []string{"offload", "no offload", "plain"} {
		for _, packets := range []int{1, 44} {
			b.Run(fmt.Sprintf("%s/%d", name, packets), func(b *testing.B) {
				from, to := open(b, ways[name]), open(b, ways[name])
				got := make(chan struct{}, 1<<16)
				received := 0
				to.Handle(udpmux.UTP, func(p []byte, _ netip.AddrPort) {
					if received++; received%packets == 0 {
						got <- struct{}{}
					}
				}, nil)
				run := bytes.Repeat([]byte{0x01}, 1400*packets)
				addr := loopback(b, to)[0]
				b.SetBytes(int64(len(run)))
				b.ReportAllocs()
				const window = 3
				for range window {
					from.Send(run, 1400, addr)
				}
				for b.Loop() {
					<-got
					from.Send(run, 1400, addr)
				}
			})
		}
	}
}
