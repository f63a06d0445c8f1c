package utp

import "net/netip"

// Addr is the address of one end of a connection. Its network is "utp".
type Addr netip.AddrPort

func (a Addr) Network() string          { return "utp" }
func (a Addr) String() string           { return netip.AddrPort(a).String() }
func (a Addr) AddrPort() netip.AddrPort { return netip.AddrPort(a) }
