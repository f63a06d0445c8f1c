package dht

import (
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/krpc"
)

func idOf(t testing.TB, s string) (id ID) {
	t.Helper()
	n, err := hex.Decode(id[:], []byte(s))
	require.NoError(t, err)
	require.Equal(t, len(id), n)
	return id
}

// The table of BEP 42.
func TestVerifiedID(t *testing.T) {
	for ip, id := range map[string]string{
		"124.31.75.21":  "5fbfbff10c5d6a4ec8a88e4c6ab4c28b95eee401",
		"21.75.31.124":  "5a3ce9c14e7a08645677bbd1cfe7d8f956d53256",
		"65.23.51.170":  "a5d43220bc8f112a3d426c84764f8c2a1150e616",
		"84.124.73.14":  "1b0321dd1bb1fe518101ceef99462b947a01ff41",
		"43.213.53.83":  "e56f6cbf5b7c4be0237986d5243b87aa6d51305a",
		"192.168.1.2":   "0000000000000000000000000000000000000000", // local ones are exempt
		"10.1.2.3":      "ffffffffffffffffffffffffffffffffffffffff",
		"172.16.0.1":    "0000000000000000000000000000000000000000",
		"169.254.1.1":   "0000000000000000000000000000000000000000",
		"127.0.0.1":     "0000000000000000000000000000000000000000",
		"::1":           "0000000000000000000000000000000000000000",
		"fd00::1":       "0000000000000000000000000000000000000000",
		"100.64.255.12": "0000000000000000000000000000000000000000",
	} {
		require.True(t, verifiedID(idOf(t, id), netip.MustParseAddr(ip)), ip)
	}
	id, ip := idOf(t, "5fbfbff10c5d6a4ec8a88e4c6ab4c28b95eee401"), netip.MustParseAddr("124.31.75.21")
	require.False(t, verifiedID(id, netip.MustParseAddr("124.31.75.22")))
	require.True(t, verifiedID(id, netip.MustParseAddr("252.31.75.21")), "the mask leaves two bits of the first byte")
	for bit := range 160 {
		other := id
		other[bit/8] ^= 0x80 >> (bit % 8)
		require.Equal(t, bit >= 21 && bit < 157, verifiedID(other, ip), "bit %d", bit)
	}
}

func TestSecureID(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 2))
	seen := make(map[ID]bool)
	for range 1000 {
		for _, ip := range []string{"8.8.8.8", "223.255.255.255", "2001:db8::1", "2a00:1450:4001:82a::200e"} {
			id := secureID(netip.MustParseAddr(ip), rng)
			require.True(t, verifiedID(id, netip.MustParseAddr(ip)))
			require.False(t, seen[id])
			seen[id] = true
		}
	}
	id := secureID(netip.MustParseAddr("2001:db8:1:2::1"), rng)
	require.True(t, verifiedID(id, netip.MustParseAddr("2001:db8:1:2:ffff::9")), "of IPv6 the first half counts")
	require.False(t, verifiedID(id, netip.MustParseAddr("2001:db8:1:3::1")))
	a, b := secureID(netip.MustParseAddr("8.8.8.8"), rng), secureID(netip.MustParseAddr("8.8.8.8"), rng)
	require.Less(t, krpc.Common(a, b), 160)
}
