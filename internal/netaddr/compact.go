package netaddr

import (
	"encoding/binary"
	"iter"
	"net/netip"
)

// Compact yields the peers of a compact list (BEP 23, BEP 7): addresses of size bytes, 4 or 16, each
// with its port behind it. Trailing bytes that are too few for another are ignored.
func Compact(p []byte, size int) iter.Seq[netip.AddrPort] {
	return func(yield func(netip.AddrPort) bool) {
		for ; len(p) >= size+2; p = p[size+2:] {
			addr, _ := netip.AddrFromSlice(p[:size]) // 4 and 16 bytes are always an address
			if !yield(netip.AddrPortFrom(addr, binary.BigEndian.Uint16(p[size:]))) {
				return
			}
		}
	}
}

// AppendCompact appends a compact list of peers, which are all of one family, to b.
func AppendCompact(b []byte, peers []netip.AddrPort) []byte {
	for _, p := range peers {
		b = append(b, p.Addr().AsSlice()...)
		b = binary.BigEndian.AppendUint16(b, p.Port())
	}
	return b
}
