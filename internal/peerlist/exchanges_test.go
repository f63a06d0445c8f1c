package peerlist

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestExchanges(t *testing.T) {
	var e Exchanges
	now := epoch
	answered := func(n int, addr func(k int) string) (ok int) {
		for k := range n {
			wait, may := e.Answer(netip.MustParseAddr(addr(k)), now)
			if may {
				ok++
			} else {
				require.Equal(t, epoch.Add(time.Second).Sub(now), wait)
			}
		}
		return ok
	}
	one := func(k int) string { return fmt.Sprintf("2001:db8:%x::%x", k, k) }
	require.Equal(t, maxExchangesOfNetwork, answered(100, one), "of a /32")
	now = now.Add(400 * time.Millisecond)
	require.Zero(t, answered(1, one))
	require.Equal(t, maxExchanges-maxExchangesOfNetwork, answered(500, func(int) string { return "10.0.0.1" }), "any number of a local address")
	require.Zero(t, answered(1, func(int) string { return "80.0.0.1" }), "but not in all")
	now = now.Add(600 * time.Millisecond)
	_, ok := e.Answer(netip.MustParseAddr(one(0)), now)
	require.True(t, ok)
}
