package netaddr_test

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/netaddr"
)

func TestOf(t *testing.T) {
	for _, tc := range []struct {
		addr net.Addr
		want string // "" is none
	}{
		{&net.TCPAddr{IP: net.IPv4(1, 2, 3, 4), Port: 5}, "1.2.3.4:5"},
		{&net.UDPAddr{IP: net.IPv4(1, 2, 3, 4).To4(), Port: 5}, "1.2.3.4:5"},
		{&net.UDPAddr{IP: net.ParseIP("fe80::1"), Port: 5, Zone: "eth0"}, "[fe80::1%eth0]:5"},
		{named("[::ffff:1.2.3.4]:5"), "1.2.3.4:5"},
		{named("pipe"), ""},
		{&net.TCPAddr{Port: 5}, ""},
	} {
		got := netaddr.Of(tc.addr)
		if tc.want == "" {
			require.False(t, got.IsValid(), tc.addr)
		} else {
			require.Equal(t, addrPort(tc.want), got)
		}
	}
}

// named is the address of a connection of some other kind.
type named string

func (named) Network() string  { return "other" }
func (n named) String() string { return string(n) }

func TestDialable(t *testing.T) {
	for addr, want := range map[string]bool{
		"1.2.3.4:1":           true,
		"127.0.0.1:65535":     true,
		"[2001:db8::1]:6881":  true,
		"1.2.3.4:0":           false,
		"0.0.0.0:1":           false,
		"[::]:1":              false,
		"224.0.0.1:1":         false,
		"[ff15::efc0:988f]:1": false,
		"255.255.255.255:1":   false,
	} {
		require.Equal(t, want, netaddr.Dialable(addrPort(addr)), addr)
	}
	require.False(t, netaddr.Dialable(netip.AddrPort{}))
	require.False(t, netaddr.Dialable(netip.AddrPortFrom(netip.Addr{}, 1)))
}

func TestIsLocal(t *testing.T) {
	for ip, want := range map[string]bool{
		"127.0.0.1":       true,
		"::1":             true,
		"10.255.0.1":      true,
		"172.16.0.1":      true,
		"192.168.1.1":     true,
		"169.254.1.1":     true,
		"fe80::1":         true,
		"fd00::1":         true,
		"100.64.0.1":      true,
		"100.127.255.255": true,
		"100.63.255.255":  false,
		"100.128.0.0":     false,
		"172.32.0.1":      false,
		"8.8.8.8":         false,
		"2001:db8::1":     false,

		"fec0::1":                   true,
		"64:ff9b::192.168.1.1":      true, // NAT64
		"64:ff9b::8.8.8.8":          false,
		"64:ff9b:1::10.0.0.1":       true,
		"64:ff9b:2::10.0.0.1":       false,
		"2002:7f00:1::1":            true, // 6to4
		"2002:808:808::192.168.1.1": false,
		"::127.0.0.1":               true,
		"::8.8.8.8":                 false,
		"::ffff:0:10.0.0.1":         true,
		"::1:0:10.0.0.1":            false,
	} {
		require.Equal(t, want, netaddr.IsLocal(netip.MustParseAddr(ip)), ip)
	}
}

func TestMayName(t *testing.T) {
	from := []string{"127.0.0.1", "192.168.1.1", "100.64.0.1", "8.8.8.8"} // from inside out
	for k, who := range from {
		for n, addr := range []string{"127.0.0.2", "10.0.0.1", "100.64.9.9", "2001:db8::1"} {
			require.Equal(t, n >= k, netaddr.MayName(netip.MustParseAddr(who), netip.MustParseAddr(addr)), "%s names %s", who, addr)
		}
	}
	require.False(t, netaddr.MayName(netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("64:ff9b::10.0.0.1")))
	require.True(t, netaddr.MayName(netip.MustParseAddr("fe80::1"), netip.MustParseAddr("169.254.1.1")))
	require.False(t, netaddr.MayName(netip.MustParseAddr("fe80::1"), netip.MustParseAddr("::1")))
}

func TestFamily(t *testing.T) {
	require.Equal(t, netaddr.IPv4, netaddr.FamilyOf(netip.MustParseAddr("1.2.3.4")))
	require.Equal(t, netaddr.IPv4, netaddr.FamilyOf(netip.MustParseAddr("::ffff:1.2.3.4")))
	require.Equal(t, netaddr.IPv6, netaddr.FamilyOf(netip.MustParseAddr("::1")))
	require.Equal(t, "udp", netaddr.AnyFamily.Network("udp"))
	require.Equal(t, "tcp4", netaddr.IPv4.Network("tcp"))
	require.Equal(t, "tcp6", netaddr.IPv6.Network("tcp"))
}

func TestCompact(t *testing.T) {
	list := []netip.AddrPort{addrPort("1.2.3.4:258"), addrPort("0.0.0.0:0")}
	p := netaddr.AppendCompact([]byte("x"), list)
	require.Equal(t, "x\x01\x02\x03\x04\x01\x02\x00\x00\x00\x00\x00\x00", string(p))
	require.Equal(t, list, slices.Collect(netaddr.Compact(append(p[1:], "rest"...), 4)))
	for a := range netaddr.Compact(p[1:], 4) {
		require.Equal(t, list[0], a)
		break
	}
	require.Empty(t, slices.Collect(netaddr.Compact(nil, 16)))
}

func FuzzCompact(f *testing.F) {
	f.Add([]byte("\x0a\x09\x09\x09\x1a\xe1"), true)
	f.Add([]byte("\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x50"), false)
	f.Fuzz(func(t *testing.T, p []byte, v4 bool) {
		size := 16
		if v4 {
			size = 4
		}
		peers := slices.Collect(netaddr.Compact(p, size))
		require.Len(t, peers, len(p)/(size+2))
		again := netaddr.AppendCompact(nil, peers)
		require.True(t, bytes.Equal(p[:len(again)], again))
	})
}

func TestHost(t *testing.T) {
	for _, c := range []struct{ addr, host string }{
		{"198.51.100.7", "198.51.100.7/32"},
		{"2001:db8:1:2:3::4", "2001:db8:1:2::/64"},
		{"fe80::1%eth0", "fe80::/64"},
	} {
		require.Equal(t, c.host, netaddr.Host(netip.MustParseAddr(c.addr)).String())
	}
}
