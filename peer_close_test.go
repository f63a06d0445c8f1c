package torrent

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/stretchr/testify/require"
)

// slowToClose is a connection whose Close takes a minute.
type slowToClose struct{ net.Conn }

func (c slowToClose) Close() error {
	time.Sleep(time.Minute)
	return c.Conn.Close()
}

// A connection of the user's own that is slow to close holds up no other.
func TestSlowClose(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, 64<<10, 1<<20)
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		c := simClient(t, us, nil)
		c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := us.Dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return slowToClose{conn}, nil
		}
		leaving := simSeed(t, simClient(t, n.NewHost("80.0.0.2", 64<<10, 0, 0), nil), content)
		simSeed(t, simClient(t, n.NewHost("80.0.0.3", 256<<10, 0, 0), nil), content)
		d := simLeech(t, c, content, netip.MustParseAddrPort("80.0.0.2:6881"), netip.MustParseAddrPort("80.0.0.3:6881"))
		began := time.Now()
		simnet.Sleep(time.Second)
		require.NoError(t, leaving.Close())
		<-d.Done()
		require.Less(t, time.Since(began), 10*time.Second)
	})
}
