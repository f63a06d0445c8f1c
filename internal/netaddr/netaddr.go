// Package netaddr has what the protocol needs for addresses: their canonical form, their family, whether a peer can
// be dialled there, whether they are local, compact lists of them, and the priority of a connection between two of
// them (BEP 40).
//
// It holds no state. Any package may call it, from any goroutine.
package netaddr

import (
	"fmt"
	"net/netip"
)

// Unmap writes the address of an IPv4 host in its 4-byte form, so that each host has one address.
func Unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// Of returns the unmapped address and port of a net.Addr, or the zero AddrPort if it has none.
func Of(a fmt.Stringer) netip.AddrPort {
	if a, ok := a.(interface{ AddrPort() netip.AddrPort }); ok { // of TCP or UDP
		return Unmap(a.AddrPort())
	}
	addr, _ := netip.ParseAddrPort(a.String())
	return Unmap(addr)
}

var (
	broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	cgnat     = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598
	siteLocal = netip.MustParsePrefix("fec0::/10")     // RFC 3879
)

// Dialable reports whether there can be a peer at an unmapped address.
func Dialable(a netip.AddrPort) bool {
	ip := a.Addr()
	return ip.IsValid() && a.Port() != 0 && !ip.IsUnspecified() && !ip.IsMulticast() && ip != broadcast
}

// IsLocal reports whether an unmapped address is loopback or private, so that several peers, on one
// host or on many, may share it. One of IPv6 that a router translates is as the one of IPv4 that it has in it.
func IsLocal(ip netip.Addr) bool {
	ip = translated(ip)
	return ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() || cgnat.Contains(ip) || siteLocal.Contains(ip)
}

// Host returns the prefix of the addresses that one host has: an address of IPv4, a /64 of IPv6.
func Host(ip netip.Addr) netip.Prefix {
	host, _ := ip.Prefix(min(ip.BitLen(), 64)) // which every address has
	return host
}

// translated is the address of IPv4 that a router or a tunnel of this network makes of one of IPv6, or ip itself.
func translated(ip netip.Addr) netip.Addr {
	if !ip.Is6() {
		return ip
	}
	a := ip.As16()
	switch {
	case a[0] == 0x20 && a[1] == 0x02: // 6to4 (RFC 3056)
		return netip.AddrFrom4([4]byte(a[2:6]))
	case a[0] == 0 && a[1] == 0x64 && a[2] == 0xff && a[3] == 0x9b && (a[4]|a[5] == 0 || a[4] == 0 && a[5] == 1): // NAT64 (RFC 6052, RFC 8215)
		return netip.AddrFrom4([4]byte(a[12:]))
	case [8]byte(a[:8]) == [8]byte{} && a[10]|a[11] == 0 && (a[8] == 0xff && a[9] == 0xff || a[8]|a[9] == 0) && !ip.IsLoopback() && !ip.IsUnspecified(): // RFC 2765, RFC 4291
		return netip.AddrFrom4([4]byte(a[12:]))
	}
	return ip
}

// MayName reports whether a source at the unmapped address from may name a peer at addr. A host on the open internet
// may not name addresses inside our network: it could make us connect to hosts that it cannot reach itself. Only this
// host may name loopback addresses.
func MayName(from, addr netip.Addr) bool { return reach(addr) <= reach(from) }

// reach is how far inside our network an address is.
func reach(ip netip.Addr) int {
	ip = translated(ip)
	switch {
	case ip.IsLoopback():
		return 3
	case cgnat.Contains(ip): // shared with strangers that have the same provider
		return 1
	case IsLocal(ip):
		return 2
	}
	return 0
}

// Family is a kind of address. A host has an address of each, peers of different families do not
// meet, and a socket is of one of them or of any.
type Family uint8

const (
	AnyFamily Family = iota
	IPv4
	IPv6
	Families // how many values a Family has
)

// FamilyOf returns the family of an address, mapped or not.
func FamilyOf(ip netip.Addr) Family {
	if ip.Unmap().Is4() {
		return IPv4
	}
	return IPv6
}

// Network returns the network of package net for a protocol over the family, such as "udp4".
func (f Family) Network(protocol string) string {
	return protocol + [Families]string{AnyFamily: "", IPv4: "4", IPv6: "6"}[f]
}
