package sockets

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// A name server on this machine would send its own queries from any address. It is not used if Config.Bind is another
// address.
func TestResolverRefusesLocalNameServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	ours := netip.MustParseAddr("127.0.0.1")
	for bind, refused := range map[string]bool{"203.0.113.77": true, "127.0.0.1": false} {
		s, err := New(Config{Bind: netip.MustParseAddr(bind), System: System{
			Addrs: func() ([]netip.Addr, error) { return []netip.Addr{ours, netip.MustParseAddr(bind)}, nil },
		}})
		require.NoError(t, err)
		defer s.Close()
		c, err := s.resolver().Dial(t.Context(), "tcp", l.Addr().String())
		if !refused {
			require.NoError(t, err)
			c.Close()
			continue
		}
		require.ErrorIs(t, err, errors.ErrUnsupported)
	}
}
