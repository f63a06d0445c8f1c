//go:build unix

package utp_test

import (
	"crypto/sha256"
	"io"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/udpmux"
	"github.com/shoal-go/torrent/internal/utp"
)

// loopback is a Socket on a UDP socket of this machine.
func loopback(t testing.TB, c udpmux.Config) (*utp.Socket, netip.AddrPort) {
	c.Bind = netip.MustParseAddr("127.0.0.1")
	m := udpmux.New(c)
	require.NoError(t, m.Open(t.Context(), 0))
	s := utp.NewSocket(utp.Config{Network: m})
	m.HandleRuns(udpmux.UTP, s.Receive, s.Flush)
	t.Cleanup(func() {
		s.Close()
		m.Close()
	})
	return s, m.Addrs()[0]
}

// A loopback carries larger packets than any network, and the two ends find that out.
func TestLargePackets(t *testing.T) {
	if lo, err := net.InterfaceByName("lo"); runtime.GOOS != "linux" || err != nil || lo.MTU < 1<<16 {
		t.Skip("needs a loopback of Linux")
	}
	for _, noOffload := range []bool{false, true} {
		s1, _ := loopback(t, udpmux.Config{NoOffload: noOffload})
		s2, addr := loopback(t, udpmux.Config{})
		l, err := s2.Listen()
		require.NoError(t, err)
		from, err := s1.Dial(t.Context(), addr)
		require.NoError(t, err)
		to, err := l.Accept()
		require.NoError(t, err)
		sum := make(chan [sha256.Size]byte)
		go func() {
			h := sha256.New()
			io.Copy(h, to)
			sum <- [sha256.Size]byte(h.Sum(nil))
		}()
		want := sha256.New()
		block := make([]byte, 50_000)
		for i, large := byte(0), 0; large < 100; i++ {
			block[i] = i
			want.Write(block)
			_, err := from.Write(block)
			require.NoError(t, err)
			if utp.PacketSize(from) > 60_000 {
				large++
			}
		}
		require.NoError(t, from.(interface{ CloseWrite() error }).CloseWrite())
		require.Equal(t, [sha256.Size]byte(want.Sum(nil)), <-sum)
	}
}

func cpu() time.Duration {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkLoopback moves bytes through one connection from end to end. "cpu-s/GB" is the CPU of both ends.
func BenchmarkLoopback(b *testing.B) {
	dialUTP := func(c udpmux.Config) func(b *testing.B) (from, to net.Conn) {
		return func(b *testing.B) (from, to net.Conn) {
			s1, _ := loopback(b, c)
			s2, addr := loopback(b, c)
			l, err := s2.Listen()
			require.NoError(b, err)
			from, err = s1.Dial(b.Context(), addr)
			require.NoError(b, err)
			to, err = l.Accept()
			require.NoError(b, err)
			return from, to
		}
	}
	for _, way := range []struct {
		name string
		dial func(b *testing.B) (from, to net.Conn)
	}{
		{"TCP", func(b *testing.B) (from, to net.Conn) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(b, err)
			defer l.Close()
			from, err = net.Dial("tcp", l.Addr().String())
			require.NoError(b, err)
			to, err = l.Accept()
			require.NoError(b, err)
			return from, to
		}},
		{"uTP", dialUTP(udpmux.Config{})},
		{"uTP without offload", dialUTP(udpmux.Config{NoOffload: true})},
	} {
		b.Run(way.name, func(b *testing.B) {
			from, to := way.dial(b)
			defer from.Close()
			defer to.Close()
			const size = 64 << 10
			done := make(chan error)
			n := 0
			go func() {
				buf := make([]byte, size)
				var err error
				for err == nil {
					var k int
					k, err = to.Read(buf)
					n += k
				}
				done <- err
			}()
			buf := make([]byte, size)
			b.SetBytes(size)
			b.ReportAllocs()
			began := cpu()
			for b.Loop() {
				_, err := from.Write(buf)
				require.NoError(b, err)
			}
			from.(interface{ CloseWrite() error }).CloseWrite()
			require.Equal(b, io.EOF, <-done)
			require.Equal(b, size*b.N, n)
			b.ReportMetric((cpu()-began).Seconds()/(float64(n)/1e9), "cpu-s/GB")
		})
	}
}
