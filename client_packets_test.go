package torrent

import (
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
)

// UDP goes through sockets on the number of the TCP port, which are not there before something is sent.
func TestPacketsShareThePort(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		us, them := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("80.0.0.2", 0, 0, 0)
		c := simClient(t, us, nil)
		require.NoError(t, c.Open())
		require.Empty(t, c.mux.Addrs())
		require.NoError(t, c.sendPacket([]byte("packet"), them.Addr(1)))
		require.Equal(t, c.port(), c.mux.Addrs()[0].Port())
	})
}

// The number of the TCP port may be taken for UDP.
func TestPacketsWherePortIsTaken(t *testing.T) {
	taken, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	c := &Client{NoDHT: true, Listen: taken.LocalAddr().String()}
	defer c.Close()
	require.NoError(t, c.Open())
	require.NoError(t, c.sendPacket([]byte("packet"), netip.MustParseAddrPort(taken.LocalAddr().String())))
	require.NotZero(t, c.mux.Addrs()[0].Port())
}

// A client whose connections all go through a function of the user's sends no packet beside it.
func TestNoPacketsBesideDial(t *testing.T) {
	c := &Client{NoDHT: true, NoListen: true, Dial: new(net.Dialer).DialContext}
	defer c.Close()
	require.NoError(t, c.Open())
	require.ErrorIs(t, c.sendPacket([]byte("packet"), netip.MustParseAddrPort("127.0.0.1:1")), ErrUnsupported)
	require.Empty(t, c.mux.Addrs())
}
