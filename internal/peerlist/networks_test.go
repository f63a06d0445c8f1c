package peerlist

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Of a network that has a connection of each of many downloads, peers that give nothing make room once another download wants more
// than its share, and as many as a crowd may have stay.
func TestNetworksOfAllDownloads(t *testing.T) {
	for _, tc := range []struct {
		addr  string
		stays int
	}{
		{"66.0.0.%d", 5},         // 40/crowdShare
		{"66.0.%d.1", 20},        // 40/networkShare
		{"%d.0.0.1", 38},         // of no network
		{"192.168.0.%d", 38},     // behind any local address may be many
		{"2001:db8:0:0::%x", 5},  // of a /64
		{"2001:db8:0:%x::1", 11}, // of a /48, which counts half
	} {
		var b Budget
		var peers []Worth
		claim := func(has int) Claim { return Claim{Has: has, Sharing: 39, Most: 40} }
		for k := range 38 {
			addr := netip.MustParseAddr(fmt.Sprintf(tc.addr, k+1))
			if b.Accept(claim(0), addr, epoch) {
				peers = append(peers, Worth{ID: k + 1, Addr: addr})
			}
		}
		require.GreaterOrEqual(t, len(peers), 36, "connections that are left over are for all")
		_, ok := found(b.Surplus(claim(1), peers[:1], epoch))
		require.False(t, ok, "none are wanted")

		require.False(t, b.Dial(claim(1), host, epoch))
		crowd, left, gone := 0, len(peers), netip.Addr{}
		for _, p := range peers {
			if _, ok := found(b.Surplus(claim(1), []Worth{p}, epoch)); ok {
				earns := p
				earns.Earned = epoch
				_, ok := found(b.Surplus(claim(1), []Worth{earns}, epoch))
				require.Equal(t, left > 20, ok, "peers that earn their places may have half of all")
				b.Left(p.Addr)
				gone = p.Addr
				left--
			} else {
				crowd++
			}
		}
		require.InDelta(t, tc.stays, crowd, 2, tc.addr)
		if !gone.IsValid() {
			continue
		}
		require.False(t, b.Accept(claim(0), gone, epoch), tc.addr)
		require.True(t, b.TargetAt(claim(1), gone, FromPEX, epoch).After(epoch))
		require.Equal(t, epoch, b.TargetAt(claim(0), gone, FromPEX, epoch), "it may be the only one that a download knows")
		require.Equal(t, epoch, b.TargetAt(claim(0), gone, FromUser, epoch))
		require.True(t, b.Dial(claim(1), host, epoch), "there is room for another download")
		require.True(t, b.Accept(claim(0), gone, epoch.Add(wantedFor+time.Second)), "none were wanted for a while")
	}
}
