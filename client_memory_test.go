package torrent

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/simnet"
)

// A tracker or peer names thousands of addresses for each of many torrents. An address takes six bytes to name and hundreds to keep,
// so all downloads and magnet links of a client together keep a bounded number.
func TestCandidatesOfManyTorrents(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil)
		name := func(f *discovery, from int) {
			for k := range 1000 {
				k += from
				f.found(peerlist.FromPEX, "66.0.0.0/16", netip.AddrPortFrom(netip.AddrFrom4([4]byte{66, byte(k >> 8), byte(k), 1}), 1))
			}
		}
		d := simLeech(t, c, newSimContent(1, blockSize, blockSize))
		name(d.discovery, 0)
		require.Equal(t, 1000, d.discovery.candidates.Known())
		for k := range 99 {
			simLeech(t, c, newSimContent(uint64(2+k), blockSize, blockSize))
		}
		simnet.Sleep(2 * time.Second)
		most := peerlist.Share(100)
		require.Less(t, most, 900)
		require.LessOrEqual(t, d.discovery.candidates.Known(), most)
		name(d.discovery, 1000)
		require.LessOrEqual(t, d.discovery.candidates.Known(), most)
		require.Greater(t, d.discovery.candidates.Known(), most/2)
	})
}

// A caller may keep downloads that have ended, or their files. They hold nothing of what sources named.
func TestEndedDownloadsForgetCandidates(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil)
		d := simLeech(t, c, newSimContent(1, blockSize, blockSize))
		for k := range 1000 {
			d.discovery.found(peerlist.FromPEX, "66.0.0.0/16", netip.AddrPortFrom(netip.AddrFrom4([4]byte{66, byte(k >> 8), byte(k), 1}), 1))
		}
		simnet.Sleep(2 * time.Second)
		require.Equal(t, 1000, d.discovery.candidates.Known())
		d.Close()
		simnet.Sleep(10 * time.Second)
		require.Zero(t, d.discovery.candidates.Known())
	})
}

// Peers that a user names, all of them dead, leave room for a seed that a tracker names, also if the client has many torrents. There
// used to be none.
func TestDeadPeersOfTheUserLeaveRoom(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 10*blockSize)
		seed := n.NewHost("82.0.0.1", 0, 0, time.Millisecond)
		simSeed(t, simClient(t, seed, nil), content)
		var dead []netip.AddrPort
		for k := range 2 * peerlist.Share(1000) {
			dead = append(dead, netip.AddrPortFrom(netip.AddrFrom4([4]byte{66, byte(k >> 8), byte(k), 1}), 1))
		}
		c := simClient(t, n.NewHost("81.0.0.1", 0, 0, time.Millisecond), nil)
		d := simLeech(t, c, content, dead...)
		c.swarms.Store(1000)
		simnet.Sleep(time.Minute)
		d.discovery.found(peerlist.FromTracker, "http://t.example", seed.Addr(6881))
		select {
		case <-d.Done():
		case <-time.After(10 * time.Minute):
			require.Fail(t, "not complete", "%+v", d.Stats())
		}
	})
}

// A few addresses that connect for each of very many downloads hold no more connections than a client has unless told otherwise.
func TestConnectionsOfManyDownloads(t *testing.T) {
	c, now, all := new(Client), time.Now(), 0
	c.registry.serving = make(map[Hash]*Download)
	for d := range 500 {
		c.registry.serving[Hash{byte(d), byte(d >> 8)}] = nil
	}
	for range c.registry.serving {
		has := 0
		for a := range byte(8) {
			for range peerlist.MaxPerAddress {
				if c.mayJoin(has, netip.AddrFrom4([4]byte{80 + a, 1, 1, 1}), now) {
					has++
				}
			}
		}
		all += has
	}
	require.Equal(t, 2000, all)
}
