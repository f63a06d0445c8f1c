package torrent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
)

// All peers seem to have the address of a router that forwards their connections, such as that of a container. A crowd that gives
// nothing holds all places, and comes back whenever it is dropped. A seed that dials the client still gets in.
func TestCrowdBehindARouter(t *testing.T) {
	for _, places := range []int{4, 5} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimContent(1, blockSize, 64*blockSize)
			c := simClient(t, n.NewHost("172.17.0.2", 0, 0, time.Millisecond), nil)
			d := simFewPlaces(t, c, content, places)
			router := n.NewHost("172.17.0.1", 0, 0, time.Millisecond)
			for k := range places {
				p := simpeer.New("crowd", router, uint16(7000+k), content.truth, keepsPlace)
				require.NoError(t, p.Arrive())
				defer p.Stop()
				p.Call(1, netaddr.Of(c.Addr()), 5*time.Second)
				simnet.Sleep(time.Second)
			}
			require.Equal(t, []int{places}, connected(d))
			simnet.Sleep(2 * time.Minute)
			seed := simpeer.New("seed", router, 6881, content.truth, simpeer.Script{Fast: true})
			require.NoError(t, seed.Arrive())
			defer seed.Stop()
			seed.Call(1, netaddr.Of(c.Addr()), 5*time.Second)
			simnet.Sleep(5 * time.Minute)
			require.True(t, d.Stats().Complete, "%d places", places)
		})
	}
}
