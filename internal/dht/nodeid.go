package dht

import (
	"hash/crc32"
	"math/rand/v2"
	"net/netip"

	"github.com/shoal-go/torrent/internal/krpc"
	"github.com/shoal-go/torrent/internal/netaddr"
)

// secureID draws an id that a node at ip may have (BEP 42): its first 21 bits follow from the address and
// three bits of the last byte, so that no node chooses what it is near to.
func secureID(ip netip.Addr, rng *rand.Rand) ID {
	id := krpc.RandomID(rng)
	sum := addressSum(ip, id[19])
	id[0], id[1] = byte(sum>>24), byte(sum>>16)
	id[2] = byte(sum>>8)&0xf8 | id[2]&0x07
	return id
}

// verifiedID reports whether a node at ip may have the id (BEP 42). Of local addresses, any may.
func verifiedID(id ID, ip netip.Addr) bool {
	if netaddr.IsLocal(ip) {
		return true
	}
	sum := addressSum(ip, id[19])
	return id[0] == byte(sum>>24) && id[1] == byte(sum>>16) && (id[2]^byte(sum>>8))&0xf8 == 0
}

// addressSum is the checksum of an address under the mask of its family, with three bits that a node may
// draw.
func addressSum(ip netip.Addr, lot byte) uint32 {
	var p []byte
	if ip.Is4() {
		a := ip.As4()
		for i, mask := range [4]byte{0x03, 0x0f, 0x3f, 0xff} {
			a[i] &= mask
		}
		p = a[:]
	} else {
		a := ip.As16()
		for i, mask := range [8]byte{0x01, 0x03, 0x07, 0x0f, 0x1f, 0x3f, 0x7f, 0xff} {
			a[i] &= mask
		}
		p = a[:8]
	}
	p[0] |= lot & 0x07 << 5
	return crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli))
}
