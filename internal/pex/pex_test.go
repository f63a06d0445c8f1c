package pex_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/pex"
	"github.com/shoal-go/torrent/internal/wire"
)

var (
	epoch  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	public = netip.MustParseAddr("80.0.0.1")
	local  = netip.MustParseAddr("192.168.0.1")
)

func several(n int) (peers []pex.Peer) {
	for k := range n {
		peers = append(peers, pex.Peer{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{81, 0, byte(k >> 8), byte(k)}), 6881)})
	}
	return peers
}

// counts are how many peers a message adds and drops.
func counts(message []byte) string {
	if message == nil {
		return ""
	}
	x := wire.ParsePEX(message)
	return fmt.Sprintf("+%d -%d", len(x.Added)+len(x.Added6), len(x.Dropped)+len(x.Dropped6))
}

func TestMessage(t *testing.T) {
	var x pex.Exchange
	now := epoch
	say := func(peers ...pex.Peer) string {
		require.True(t, x.Due(now))
		said := counts(x.Message(public, slices.Values(peers), now))
		now = now.Add(time.Minute)
		return said
	}
	require.Empty(t, say())
	require.True(t, x.Due(now.Add(-time.Minute)), "nothing was told")
	all := several(60)
	require.Equal(t, "+50 -0", say(all...))
	require.False(t, x.Due(now.Add(-time.Second)), "once a minute")
	require.Equal(t, "+10 -0", say(all...))
	require.Empty(t, say(all...), "no news")
	require.Equal(t, "+0 -50", say())
	require.Equal(t, "+0 -10", say())

	six := pex.Peer{Addr: netip.MustParseAddrPort("[2001:db8::1]:1"), Flags: wire.PEXSeed}
	m := wire.ParsePEX(x.Message(public, slices.Values([]pex.Peer{six}), now))
	require.Equal(t, []netip.AddrPort{six.Addr}, m.Added6)
	require.Equal(t, []byte{wire.PEXSeed}, m.Added6Flags)
	require.Equal(t, "+0 -1", counts(x.Message(public, slices.Values([]pex.Peer(nil)), now)))
}

func TestMessageNamesNoLocalPeerToOthers(t *testing.T) {
	near := []pex.Peer{{Addr: netip.MustParseAddrPort("192.168.0.2:1")}}
	var x, y pex.Exchange
	require.Empty(t, counts(x.Message(public, slices.Values(near), epoch)))
	require.Equal(t, "+1 -0", counts(y.Message(local, slices.Values(near), epoch)))
}

func TestReceive(t *testing.T) {
	addrs := func(texts ...string) (all []netip.AddrPort) {
		for _, s := range texts {
			all = append(all, netip.MustParseAddrPort(s))
		}
		return all
	}
	said := wire.PEX{
		Added:      addrs("82.0.0.1:0", "224.0.0.1:1", "82.0.0.1:1", "82.0.0.1:2", "82.0.0.2:2", "192.168.0.2:1", "192.168.0.2:2"),
		AddedFlags: []byte{0, 0, wire.PEXSeed},
		Added6:     addrs("[2001:db8:1::1]:1"),
	}
	for from, want := range map[netip.Addr][]netip.AddrPort{
		public: addrs("82.0.0.1:1", "82.0.0.2:2"),
		local:  addrs("82.0.0.1:1", "82.0.0.2:2", "192.168.0.2:1", "192.168.0.2:2"),
	} {
		var x pex.Exchange
		named, err := x.Receive(said.Append(nil), from, epoch)
		require.NoError(t, err)
		var got []netip.AddrPort
		for p := range named {
			if p.Addr.Addr().Is4() {
				got = append(got, p.Addr)
			}
			require.Equal(t, p.Addr == want[0], p.Flags == wire.PEXSeed)
		}
		require.Equal(t, want, got, "from %v", from)
		for p := range named {
			require.Equal(t, want[0], p.Addr)
			break
		}
	}
}

func TestReceiveTooOften(t *testing.T) {
	var x pex.Exchange
	said := wire.PEX{Added: []netip.AddrPort{netip.MustParseAddrPort("82.0.0.1:1")}}
	receive := func(at time.Time) (int, error) {
		named, err := x.Receive(said.Append(nil), public, at)
		return len(slices.Collect(named)), err
	}
	n, err := receive(epoch)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	for range 10 {
		n, err = receive(epoch.Add(9 * time.Second))
		require.NoError(t, err)
		require.Zero(t, n, "too soon")
	}
	n, err = receive(epoch.Add(10 * time.Second))
	require.NoError(t, err)
	require.Equal(t, 1, n)
	_, err = receive(epoch.Add(11 * time.Second))
	require.ErrorContains(t, err, "too many peer exchange messages")
}
