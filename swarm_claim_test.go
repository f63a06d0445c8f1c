package torrent

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/wire"
)

// A liar that shares its address with an honest peer says that it listens where that one does, and even takes its
// peer id. The user named the honest one, which is dialled all the same, and not banned for what the liar does.
func TestClaimOfAnothersPort(t *testing.T) {
	for _, ip := range []string{"80.0.0.9", "10.0.0.9", "100.64.0.9"} {
		for _, stolen := range []bool{false, true} {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := newSimContent(1, blockSize, 64*blockSize)
				us, behind := n.NewHost("81.0.0.1", 0, 0, time.Millisecond), n.NewHost(ip, 20e3, 0, time.Millisecond)
				honest := simpeer.New("honest", behind, 6881, content.truth, simpeer.Script{Fast: true})
				defer honest.Stop()
				c := simClient(t, us, nil)
				d := simLeech(t, c, content)
				simnet.Sleep(time.Second)
				for k := range 3 { // as many as a public address may have
					can := speech{fast: true, extended: true}
					if stolen && k == 0 {
						can.id = honest.ID()
					}
					liar := speak(t, behind, content, us.Addr(6881), can)
					liar.sayID(wire.HaveNone)
					liar.sayHello(wire.ExtHandshake{P: 6881})
				}
				simnet.Sleep(time.Second)
				require.NoError(t, honest.Arrive())
				d.AddPeers(honest.Addr())
				simnet.Sleep(40 * time.Second)
				require.True(t, slices.ContainsFunc(d.Stats().Peers, func(p PeerStats) bool { return p.Addr == honest.Addr() }), "%s, with the id of the honest one: %t", ip, stolen)

				d.mu.Lock()
				for _, p := range d.swarm.peers {
					if p.conn.incoming {
						d.ban([]any{p.supply.Origin}) // as if it had sent a false block
						break
					}
				}
				d.mu.Unlock()
				simnet.Sleep(time.Minute)
				require.True(t, d.Stats().Complete, "%s", ip)
			})
		}
	}
}
