package peerlist

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Each network has one turn, then each of its prefixes, then each of their addresses.
func TestLineOfPrefixes(t *testing.T) {
	now := epoch
	var l line
	waiting := map[string]bool{}
	for _, addr := range []string{"1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.2.1", "2.1.1.1", "1.1.1.4", "2.1.1.2", "3.1.1.1"} {
		l.wait(lineage(netip.MustParseAddr(addr)), now)
		waiting[addr] = true
	}
	var order []string
	for len(waiting) > 0 {
		for addr := range waiting {
			if path := lineage(netip.MustParseAddr(addr)); l.ahead(path, 100, now) == 0 {
				l.servedAlong(path, true)
				order = append(order, addr)
				delete(waiting, addr)
				break
			}
		}
	}
	require.Equal(t, []string{"1.1.1.1", "2.1.1.1", "3.1.1.1", "1.1.2.1", "2.1.1.2", "1.1.1.2", "1.1.1.3", "1.1.1.4"}, order)
	require.Zero(t, l.size())
}

// One that gets no place leaves the line, and its neighbours stay where they are.
func TestLineIsLeft(t *testing.T) {
	var l line
	path := func(addr string) []netip.Prefix { return lineage(netip.MustParseAddr(addr)) }
	for _, addr := range []string{"1.1.1.1", "1.1.1.2", "2.1.1.1", "3.1.1.1"} {
		l.wait(path(addr), epoch)
	}
	require.Equal(t, 3, l.ahead(path("3.1.1.9"), 9, epoch), "two networks, and one address")
	l.servedAlong(path("1.1.1.1"), false)
	require.Zero(t, l.ahead(path("1.1.1.2"), 9, epoch))
	l.servedAlong(path("1.1.1.2"), false)
	require.Zero(t, l.ahead(path("2.1.1.1"), 9, epoch))
	require.Equal(t, 6, l.size())
}

// However many addresses of a few networks wait, they take bounded memory, and other networks wait beside them. They are forgotten.
func TestLineIsBounded(t *testing.T) {
	var l line
	for net := range 40 {
		for k := range 1000 {
			l.wait(lineage(netip.MustParseAddr(fmt.Sprintf("2001:%x:1:%x::1", net, k))), epoch)
		}
	}
	require.LessOrEqual(t, l.size(), maxWithin+40)
	for k := range 2 * maxNetworks {
		l.wait(lineage(netip.AddrFrom4([4]byte{byte(20 + k>>8), byte(k), 0, 1})), epoch)
	}
	require.Equal(t, maxNetworks, l.order.Len())
	require.LessOrEqual(t, l.size(), maxWithin+maxNetworks)
	l.wait(lineage(netip.MustParseAddr("90.0.0.1")), epoch.Add(waitsForPlace+time.Second))
	require.Equal(t, 3, l.size())
}
