package netaddr

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"net/netip"
)

// Priority is the canonical priority of the connection between two peers (BEP 40), the same at both
// ends. Prefer connections with a higher priority.
func Priority(a, b netip.AddrPort) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	a, b = Unmap(a), Unmap(b)
	if a.Addr() == b.Addr() {
		p := binary.BigEndian.AppendUint16(nil, min(a.Port(), b.Port()))
		return crc32.Checksum(binary.BigEndian.AppendUint16(p, max(a.Port(), b.Port())), table)
	}
	p, q, whole := a.Addr().AsSlice(), b.Addr().AsSlice(), 2
	if len(p)+len(q) > 8 {
		v, w := a.Addr().As16(), b.Addr().As16()
		p, q, whole = v[:], w[:], 6
	}
	// The first bytes count in full, at least one more than both have in common; of the rest every
	// other bit does.
	same := 0
	for same < len(p) && p[same] == q[same] {
		same++
	}
	for i := max(whole, same+1); i < len(p); i++ {
		p[i] &= 0x55
		q[i] &= 0x55
	}
	if bytes.Compare(p, q) > 0 {
		p, q = q, p
	}
	return crc32.Checksum(append(p, q...), table)
}
