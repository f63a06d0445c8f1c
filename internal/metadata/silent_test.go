package metadata

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/wire"
)

// Of many hosts that were silent, few are remembered, and the last one is.
func TestSilentHostsAreForgotten(t *testing.T) {
	m, last := New(), netip.AddrPort{}
	for k := range 2 * maxSilent {
		last = netip.AddrPortFrom(netip.AddrFrom4([4]byte{80, byte(k >> 8), byte(k), 1}), 1)
		p := m.Join(last, epoch)
		require.NoError(t, m.Offer(p, wire.MetadataBlock))
		require.Len(t, m.Next(p, epoch), 1)
		m.Leave(p)
	}
	require.Len(t, m.silent, maxSilent)
	require.Contains(t, m.silent, netaddr.Host(last.Addr()))
}
