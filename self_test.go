package torrent

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A client that is told of its own address calls it once, and never again.
func TestOwnAddressIsCalledOnce(t *testing.T) {
	for _, policy := range []EncryptionPolicy{PreferEncryption, RequireEncryption, DisableEncryption} {
		simulate(t, func(t *testing.T, n *simNet) {
			content := newSimContent(1, 16<<10, 256<<10)
			us := n.host("80.0.0.1", 0, 0, 0)
			c := simClient(t, us, nil)
			c.Encryption = policy
			calls := 0
			c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				calls++
				return us.dial(ctx, network, addr)
			}
			simLeech(t, c, content, netip.MustParseAddrPort("80.0.0.1:6881"))
			after(10 * time.Minute)
			require.Equal(t, 1, calls, policy)
		})
	}
}
