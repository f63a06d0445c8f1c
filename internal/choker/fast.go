package choker

import (
	"crypto/sha1"
	"encoding/binary"
	"net/netip"
	"slices"
)

// AllowedFast returns the set of k pieces that the peer at ip may request while it is choked (BEP 6). It is the same for
// all peers of one /24, and for every client that computes it. Only IPv4 addresses have one.
func AllowedFast(ip netip.Addr, infoHash [20]byte, pieces, k int) []uint32 {
	if !ip.Is4() {
		return nil
	}
	a := ip.As4()
	a[3] = 0
	x := append(a[:], infoHash[:]...)
	var set []uint32
	for len(set) < min(k, pieces) {
		sum := sha1.Sum(x)
		x = sum[:]
		for i := 0; i+4 <= len(x) && len(set) < min(k, pieces); i += 4 {
			index := binary.BigEndian.Uint32(x[i:]) % uint32(pieces)
			if !slices.Contains(set, index) {
				set = append(set, index)
			}
		}
	}
	return set
}
