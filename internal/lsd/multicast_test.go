package lsd_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/shoal-go/torrent/internal/lsd"
	"github.com/stretchr/testify/require"
)

// Only what is sent to the group is heard, not what anyone sends to this machine, even from outside the local network.
func TestUnicastIsNotHeard(t *testing.T) {
	if _, err := net.InterfaceByName("lo"); err != nil {
		t.Skip("not Linux")
	}
	for _, test := range []struct{ network, self, group string }{
		{"udp4", "127.0.0.1", "239.192.152.143"},
		{"udp6", "::1", "ff12::efc0:988f"},
	} {
		loopback, err := net.InterfaceByName("lo")
		require.NoError(t, err)
		free, err := net.ListenPacket(test.network, netip.AddrPortFrom(netip.MustParseAddr(test.self), 0).String())
		if err != nil {
			t.Logf("no %s here: %v", test.network, err)
			continue
		}
		port := free.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		require.NoError(t, free.Close())
		group := netip.AddrPortFrom(netip.MustParseAddr(test.group), port)
		conn, err := lsd.ListenMulticast(test.network, group, loopback, netip.MustParseAddr(test.self))
		if err != nil {
			t.Logf("no multicast by %s here: %v", test.network, err)
			continue
		}
		stranger, err := net.Dial(test.network, netip.AddrPortFrom(netip.MustParseAddr(test.self), port).String())
		require.NoError(t, err)
		_, err = stranger.Write([]byte("to this machine"))
		require.NoError(t, err)
		to := net.UDPAddrFromAddrPort(group)
		if group.Addr().Is6() {
			to.Zone = loopback.Name
		}
		if _, err = conn.WriteTo([]byte("to the group"), to); err != nil {
			t.Logf("no multicast by %s here: %v", test.network, err)
			require.NoError(t, conn.Close())
			continue
		}
		b := make([]byte, 100)
		n, _, err := conn.ReadFrom(b)
		require.NoError(t, err)
		require.Equal(t, "to the group", string(b[:n]), test.network)
		require.NoError(t, stranger.Close())
		require.NoError(t, conn.Close())
	}
}
