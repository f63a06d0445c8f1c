package portmap

import (
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGatewaysOf(t *testing.T) {
	addrs := []net.Addr{
		cidr("10.0.0.5/8"), cidr("192.168.1.5/24"), cidr("fe80::5/64"), cidr("fd00::5/64"),
		cidr("2001:db8::1/64"), cidr("2001:db8::2/64"), cidr("2001:db8::3/128"), cidr("2001:db8::4/64"), cidr("2001:db8::5/64"),
	}
	locals := func(router string) (found []string) {
		for _, g := range gatewaysOf(netip.MustParseAddr(router), "eth0", addrs) {
			found = append(found, g.Router.String()+" "+g.Local.String())
		}
		return found
	}
	require.Equal(t, []string{"192.168.1.1 192.168.1.5"}, locals("192.168.1.1"))
	require.Equal(t, []string{"172.16.0.1 10.0.0.5"}, locals("172.16.0.1"), "on a link of its own")
	require.Equal(t, []string{"192.168.1.5 10.0.0.5"}, locals("192.168.1.5"), "not itself")
	require.Equal(t, []string{
		"fe80::1%eth0 2001:db8::1", "fe80::1%eth0 2001:db8::2", "fe80::1%eth0 2001:db8::3", "fe80::1%eth0 2001:db8::4",
	}, locals("fe80::1"))
	require.Equal(t, "2001:db8::ff 2001:db8::1", locals("2001:db8::ff")[0])
	require.Empty(t, gatewaysOf(netip.MustParseAddr("192.168.1.1"), "eth0", addrs[2:]))
	require.Empty(t, gatewaysOf(netip.MustParseAddr("fe80::1"), "eth0", addrs[:4]))
}

// cidr is an address of an interface, as package net has it.
func cidr(s string) net.Addr {
	ip, network, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	return &net.IPNet{IP: ip, Mask: network.Mask}
}

// TestGateways asks this machine, whatever it has.
func TestGateways(t *testing.T) {
	found, err := Gateways()
	require.NoError(t, err)
	for _, g := range found {
		require.Equal(t, g.Router.Is4(), g.Local.Is4())
		require.True(t, g.Local.IsValid() && g.Router != g.Local)
	}
}
