package dht

import (
	"encoding/binary"
	"net/netip"

	"github.com/shoal-go/torrent/internal/netaddr"
)

// hostOf returns the key that counts as one node: an address with port 0, or a local address with its port, because
// many nodes may share that address.
func hostOf(a netip.AddrPort) netip.AddrPort {
	if netaddr.IsLocal(a.Addr()) {
		return a
	}
	return netip.AddrPortFrom(a.Addr(), 0)
}

// networkOf returns the network that one operator is likely to hold in full: a /24 of IPv4 or a /64 of IPv6 with port
// 0, or a local address with its port.
func networkOf(a netip.AddrPort) netip.AddrPort {
	ip := a.Addr()
	if netaddr.IsLocal(ip) {
		return a
	}
	if ip.Is4() {
		p := ip.As4()
		p[3] = 0
		return netip.AddrPortFrom(netip.AddrFrom4(p), 0)
	}
	p := ip.As16()
	clear(p[8:])
	return netip.AddrPortFrom(netip.AddrFrom16(p), 0)
}

// A site is a /29 of IPv6, the largest block that a registry allocates without a justification. It is 0 for other addresses: no
// one owner has enough of IPv4 to choose ids near a target.
type site uint32

func siteOf(a netip.AddrPort) site {
	ip := a.Addr()
	if ip.Is4() || netaddr.IsLocal(ip) {
		return 0
	}
	p := ip.As16()
	return site(binary.BigEndian.Uint32(p[:]) >> 3)
}

// sameNetwork reports whether two addresses are of one network. It is quick for those that are not.
func sameNetwork(a, b netip.AddrPort) bool {
	p, q := a.Addr(), b.Addr()
	if p.Is4() != q.Is4() {
		return false
	}
	if p.Is4() {
		if p, q := p.As4(), q.As4(); p[0] != q[0] || p[1] != q[1] || p[2] != q[2] {
			return false
		}
	} else if p, q := p.As16(), q.As16(); [8]byte(p[:8]) != [8]byte(q[:8]) {
		return false
	}
	return networkOf(a) == networkOf(b)
}

// family is IPv4 or IPv6: each has a DHT of its own (BEP 32).
type family uint8

const (
	ipv4 family = iota
	ipv6
	families
)

// familyOf is the family of an address, and whether there can be a node or a peer there.
func familyOf(a netip.AddrPort) (family, bool) {
	if !netaddr.Dialable(a) || a.Addr().Is4In6() {
		return 0, false
	}
	if a.Addr().Is4() {
		return ipv4, true
	}
	return ipv6, true
}

// mayName reports whether a node at from is believed to know of one at a: a local one is known to local
// nodes alone, and no node on the Internet makes us send anything into our own network.
func mayName(from, a netip.AddrPort) bool {
	return netaddr.MayName(from.Addr(), a.Addr())
}
