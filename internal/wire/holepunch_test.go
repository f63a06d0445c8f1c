package wire_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/wire"
)

func TestHolePunch(t *testing.T) {
	four, six := netip.MustParseAddrPort("80.1.2.3:6881"), netip.MustParseAddrPort("[2001:db8::1]:6881")
	short := append([]byte{0, 1}, six.Addr().AsSlice()...)
	short = append(short, 0x1a, 0xe1)
	for name, tc := range map[string]struct {
		payload []byte
		want    wire.HolePunch
	}{
		"rendezvous with a code":         {[]byte("\x00\x00\x50\x01\x02\x03\x1a\xe1\x00\x00\x00\x00"), wire.HolePunch{Addr: four}},
		"connect without a code":         {[]byte("\x01\x00\x50\x01\x02\x03\x1a\xe1"), wire.HolePunch{Type: 1, Addr: four}},
		"error":                          {[]byte("\x02\x00\x50\x01\x02\x03\x1a\xe1\x00\x00\x00\x03"), wire.HolePunch{Type: 2, Addr: four, Code: wire.HolePunchNoSupport}},
		"a code without an error":        {[]byte("\x01\x00\x50\x01\x02\x03\x1a\xe1\x00\x00\x00\x03"), wire.HolePunch{Type: 1, Addr: four}},
		"IPv6 without a code":            {short, wire.HolePunch{Addr: six}},
		"IPv6 with one":                  {append(short, 0, 0, 0, 0), wire.HolePunch{Addr: six}},
		"a type that is not known (yet)": {[]byte("\x09\x00\x50\x01\x02\x03\x1a\xe1"), wire.HolePunch{Type: 9, Addr: four}},
	} {
		m, ok := wire.ParseHolePunch(tc.payload)
		require.True(t, ok, name)
		require.Equal(t, tc.want, m, name)
	}
	for _, p := range []string{"", "\x00", "\x00\x00", "\x00\x00\x50\x01\x02\x03\x1a", "\x00\x02\x50\x01\x02\x03\x1a\xe1", "\x00\x00\x50\x01\x02\x03\x1a\xe1\x00", "\x00\x01\x50\x01\x02\x03\x1a\xe1"} {
		_, ok := wire.ParseHolePunch([]byte(p))
		require.False(t, ok, "%q", p)
	}
	m := wire.HolePunch{Type: wire.HolePunchRendezvous, Addr: four}
	require.Len(t, m.Append(nil), 12)
	m.Addr = six
	require.Len(t, m.Append(nil), 24)
}

func FuzzHolePunch(f *testing.F) {
	for _, a := range []string{"80.1.2.3:6881", "[2001:db8::1]:1"} {
		m := wire.HolePunch{Type: wire.HolePunchError, Addr: netip.MustParseAddrPort(a), Code: 2}
		f.Add(m.Append(nil))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		m, ok := wire.ParseHolePunch(p)
		if !ok {
			return
		}
		again, ok := wire.ParseHolePunch(m.Append(nil))
		require.True(t, ok)
		require.Equal(t, m, again)
	})
}
