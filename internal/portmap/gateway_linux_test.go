package portmap

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	table4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n" +
		"wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n" +
		"eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n" +
		"tun0\t00000000\t00000000\t0001\t0\t0\t50\t00000000\t0\t0\t0\n" + // no router
		"eth0\t00000000\t0200000A\t0003\t0\t0\t0\t00000080\t0\t0\t0\n" + // half of everything
		"eth0\t0000000A\t00000000\t0001\t0\t0\t100\t000000FF\t0\t0\t0\n" +
		"eth0\t00000000\t0300000A\t0002\t0\t0\t0\t00000000\t0\t0\t0\n" + // down
		"eth0\t00000000\tnonsense\t0003\t0\t0\t0\t00000000\n" +
		"eth0\t00000000\n"
	table6 = "20010db8000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n" +
		"00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n" +
		"00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n" +
		"00000000000000000000000000000000 00 20010db8000000000000000000000000 40 fe800000000000000000000000000002 00000400 00000001 00000000 00000003     eth0\n" + // of some sources
		"00000000000000000000000000000000 00 x\n"
)

func TestRouteTables(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 { // as the tables above are
		require.Equal(t, []namedRoute{
			{netip.MustParseAddr("192.168.1.1"), "wlan0", 600},
			{netip.MustParseAddr("10.0.0.1"), "eth0", 100},
		}, parseRoutes([]byte(table4)))
	}
	require.Equal(t, []namedRoute{{netip.MustParseAddr("fe80::1"), "eth0", 1024}}, parseRoutes6([]byte(table6)))
}

// FuzzRoutes reads route tables without a fault.
func FuzzRoutes(f *testing.F) {
	f.Add([]byte(table4))
	f.Add([]byte(table6))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, r := range parseRoutes(b) {
			if !r.router.Is4() {
				t.Fatal(r)
			}
		}
		for _, r := range parseRoutes6(b) {
			if !r.router.Is6() {
				t.Fatal(r)
			}
		}
	})
}
