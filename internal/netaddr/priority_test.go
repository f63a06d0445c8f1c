package netaddr_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/netaddr"
)

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestPriority(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want uint32
	}{
		// The two examples of BEP 40.
		{"123.213.32.10:1", "98.76.54.32:2", 0xec2d7224},
		{"123.213.32.10:1", "123.213.32.234:2", 0x99568189},
		{"[::ffff:123.213.32.10]:1", "98.76.54.32:2", 0xec2d7224},
	} {
		require.Equal(t, tc.want, netaddr.Priority(addrPort(tc.a), addrPort(tc.b)))
	}

	same := func(a, b, c, d string) bool {
		return netaddr.Priority(addrPort(a), addrPort(b)) == netaddr.Priority(addrPort(c), addrPort(d))
	}
	for _, tc := range []struct {
		a, b, c, d string
		want       bool
		why        string
	}{
		{"1.2.3.4:1", "5.6.7.8:2", "1.2.3.4:9", "5.6.7.8:9", true, "the port does not matter"},
		{"1.2.3.4:1", "5.6.7.8:2", "1.2.3.6:1", "5.6.7.8:2", true, "nor do every other bit of the last bytes"},
		{"1.2.3.4:1", "5.6.7.8:2", "1.2.3.5:1", "5.6.7.8:2", false, "the others do"},
		{"1.2.3.4:1", "1.2.7.8:2", "1.2.3.6:1", "1.2.7.8:2", true, "in one /16, the last byte counts by half"},
		{"1.2.3.4:1", "1.2.7.8:2", "1.2.1.4:1", "1.2.7.8:2", false, "the byte before it in full"},
		{"1.2.3.4:1", "1.2.3.8:2", "1.2.3.6:1", "1.2.3.8:2", false, "in one /24, all bytes do"},
		{"1.2.3.4:1", "1.2.3.4:2", "1.2.3.4:1", "1.2.3.4:3", false, "of one host, the ports do"},
		{"1.2.3.4:1", "1.2.3.4:2", "9.9.9.9:2", "9.9.9.9:1", true, "and nothing else"},
		{"[2001:db8:1::1]:1", "[2001:db9::2]:2", "[2001:db8:1:aa00::1]:1", "[2001:db9::2]:2", true, "IPv6: bytes after the /48 count by half"},
		{"[2001:db8:1:100::1]:1", "[2001:db8:1:200::2]:2", "[2001:db8:1:300::1]:1", "[2001:db8:1:200::2]:2", false, "in one /48, the next byte counts in full"},
		{"[2001:db8:1:1::1]:1", "[2001:db8:1:2::2]:2", "[2001:db8:1:3::1]:1", "[2001:db8:1:2::2]:2", false, "in one /56 one more"},
		{"1.2.3.4:1", "[2001:db8::1]:2", "[::ffff:1.2.3.4]:1", "[2001:db8::1]:2", true, "the families do not meet, but if they do, no harm is done"},
	} {
		require.Equal(t, tc.want, same(tc.a, tc.b, tc.c, tc.d), "%s-%s and %s-%s: %s", tc.a, tc.b, tc.c, tc.d, tc.why)
	}

	rng := rand.New(rand.NewPCG(1, 8))
	for range 1000 {
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{1, byte(rng.IntN(2)), byte(rng.IntN(2)), byte(rng.IntN(256))}), uint16(rng.IntN(9)))
		b := netip.AddrPortFrom(netip.AddrFrom4([4]byte{1, byte(rng.IntN(2)), byte(rng.IntN(2)), byte(rng.IntN(256))}), uint16(rng.IntN(9)))
		require.Equal(t, netaddr.Priority(a, b), netaddr.Priority(b, a), "both ends come to the same, for %s and %s", a, b)
	}
}
