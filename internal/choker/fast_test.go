package choker

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// The examples of BEP 6.
func TestAllowedFastSet(t *testing.T) {
	h := [20]byte(bytes.Repeat([]byte{0xaa}, 20))
	ip := netip.MustParseAddr("80.4.4.200")
	require.Equal(t, []uint32{1059, 431, 808, 1217, 287, 376, 1188}, AllowedFast(ip, h, 1313, 7))
	require.Equal(t, []uint32{1059, 431, 808, 1217, 287, 376, 1188, 353, 508}, AllowedFast(ip, h, 1313, 9))
	require.Equal(t, AllowedFast(ip, h, 1313, 9), AllowedFast(netip.MustParseAddr("80.4.4.1"), h, 1313, 9), "one set for all of a network")
	require.ElementsMatch(t, []uint32{0, 1, 2}, AllowedFast(ip, h, 3, 5), "there are no more pieces")
	require.Empty(t, AllowedFast(netip.MustParseAddr("2001:db8::1"), h, 1313, 9), "it is not defined")
}
