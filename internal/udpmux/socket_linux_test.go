package udpmux

import (
	"bytes"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func udpPair(t *testing.T) (s *linuxSocket, other *net.UDPConn) {
	listen := func() *net.UDPConn {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	s = newSystemSocket(listen(), false).(*linuxSocket)
	if !s.offload {
		t.Skip("this kernel has no UDP_SEGMENT")
	}
	return s, listen()
}

// Data that the kernel refuses to cut into packets is still sent.
func TestRunsThatCannotBeOffloaded(t *testing.T) {
	s, other := udpPair(t)
	s.raw.Control(func(fd uintptr) {
		// Without checksums there is no offload (EINVAL).
		require.NoError(t, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1))
	})
	run := bytes.Repeat([]byte("0123456789"), 250)
	n, err := s.send(run, 1000, other.LocalAddr().(*net.UDPAddr).AddrPort())
	require.NoError(t, err)
	require.Equal(t, len(run), n)
	b := make([]byte, 1<<16)
	for _, size := range []int{1000, 1000, 500} {
		n, err := other.Read(b)
		require.NoError(t, err)
		require.Equal(t, size, n)
	}
	require.True(t, s.offload, "another run may do better")
}

func TestProbeIsNotFragmented(t *testing.T) {
	s, other := udpPair(t)
	mode := func() (mode int) {
		s.raw.Control(func(fd uintptr) { mode, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER) })
		return mode
	}
	require.Equal(t, unix.IP_PMTUDISC_DONT, mode())
	require.NoError(t, s.probe(make([]byte, 1400), other.LocalAddr().(*net.UDPAddr).AddrPort()))
	require.ErrorIs(t, s.probe(make([]byte, 65507+1), other.LocalAddr().(*net.UDPAddr).AddrPort()), syscall.EMSGSIZE)
	require.Equal(t, unix.IP_PMTUDISC_DONT, mode())
}

func TestZone(t *testing.T) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Skip(err)
	}
	var z zones
	index, err := z.index("lo")
	require.NoError(t, err)
	require.EqualValues(t, lo.Index, index)
	require.Equal(t, "lo", z.name(index))
	index, err = z.index("4711")
	require.NoError(t, err)
	require.EqualValues(t, 4711, index)
	require.Equal(t, "4711", z.name(4711))
	_, err = z.index("no such interface")
	require.Error(t, err)

	s := &linuxSocket{ipv6: true}
	addr := netip.MustParseAddrPort("[fe80::1%lo]:6881")
	require.NoError(t, s.address(addr))
	back, ok := s.parse(&s.outName)
	require.True(t, ok)
	require.Equal(t, addr, back)
}
