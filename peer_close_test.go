package torrent

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
)

// onceSlow is a connection whose first Close takes a minute, and adds to closing meanwhile.
type onceSlow struct {
	net.Conn
	begun   *atomic.Bool
	closing *atomic.Int32
}

func (c onceSlow) Close() error {
	if c.begun.Swap(true) {
		return nil
	}
	c.closing.Add(1)
	defer c.closing.Add(-1)
	defer time.Sleep(time.Minute)
	return c.Conn.Close()
}

// When the user closes a download, or ends the context of a magnet link, it returns after all connections of the user's own have
// closed.
func TestConnectionsAreClosedAtTheEnd(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimResolvable(t, 100, false)
		useless := speakMetadata(t, n.NewHost("81.0.0.1", 0, 0, 0), content, metadataScript{silent: func(int) bool { return true }})
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		c := simClient(t, us, nil)
		var closing, dialled atomic.Int32
		c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := us.Dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			dialled.Add(1)
			return onceSlow{conn, new(atomic.Bool), &closing}, nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := content.Magnet().Resolve(ctx, &Options{Client: c, Peers: []netip.AddrPort{useless.addr()}})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotZero(t, dialled.Swap(0))
		require.Zero(t, closing.Load(), "of a magnet link")

		d := simLeech(t, c, content, useless.addr())
		simnet.Sleep(5 * time.Second)
		require.NotZero(t, d.Stats().Peers)
		require.NoError(t, d.Close())
		require.Zero(t, closing.Load(), "of a download")
	})
}
