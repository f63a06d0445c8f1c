package peerlist_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/peerlist"
)

func TestIsSelf(t *testing.T) {
	l := peerlist.New(rand.New(rand.NewPCG(1, 1)), false)
	a, b := netip.MustParseAddrPort("80.0.0.1:1"), netip.MustParseAddrPort("80.0.0.1:2")
	require.False(t, l.IsSelf(a))
	l.SetExternal(a)
	l.ExcludeSelf(b)
	require.True(t, l.IsSelf(a) && l.IsSelf(b))
}

// Our external address is believed of a router, and then of peers of several networks that agree on another. Otherwise a single
// liar would decide whom we dial first, or have us take an honest peer for ourselves.
func TestExternalByVote(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l := peerlist.New(rand.New(rand.NewPCG(1, 1)), false)
	honest, us, routed := netip.MustParseAddrPort("80.0.0.1:6881"), netip.MustParseAddrPort("81.0.0.1:6881"), netip.MustParseAddrPort("82.0.0.1:7000")
	told := func(from string, says netip.AddrPort) netip.AddrPort {
		now = now.Add(time.Second)
		l.Told(netip.MustParseAddr(from), says, now)
		return l.External(netaddr.IPv4)
	}
	for k := range 20 {
		told(fmt.Sprintf("90.0.0.%d", k), honest)
		told(fmt.Sprintf("192.168.0.%d", k%3), honest)
		told(fmt.Sprintf("2001:db8:%x::1", k), honest)
	}
	require.False(t, l.IsSelf(honest), "a network has one voice, and one of the other family none")
	require.False(t, l.External(netaddr.IPv4).IsValid())

	l.SetExternal(routed)
	require.Equal(t, routed, l.External(netaddr.IPv4))
	for k := range 12 {
		told(fmt.Sprintf("91.0.%d.1", k), us)
	}
	require.Equal(t, us, l.External(netaddr.IPv4))
	require.True(t, l.IsSelf(us))
	l.SetExternal(routed)
	require.Equal(t, us, l.External(netaddr.IPv4), "they know better")

	l.ForgetVotes()
	require.Equal(t, us, l.External(netaddr.IPv4), "until another is known")
	for k := range 5 {
		told(fmt.Sprintf("92.0.%d.1", k), honest)
	}
	require.Equal(t, honest, l.External(netaddr.IPv4), "the network has changed")

	at := now
	l.ForgetVotes()
	for k := range 9 {
		l.Told(netip.MustParseAddr(fmt.Sprintf("93.0.%d.1", k)), us, at)
	}
	require.Equal(t, honest, l.External(netaddr.IPv4), "all candidates were just put in order")
	require.Equal(t, us, told("93.0.9.1", us))
}
