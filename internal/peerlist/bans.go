package peerlist

import (
	"net/netip"

	"github.com/shoal-go/torrent/internal/expiring"
	"github.com/shoal-go/torrent/internal/netaddr"
)

const maxBans = 10_000 // addresses of liars that a list remembers

// Ban refuses an address for good, unless very many are banned: every port of a public one, only the one port of a local one,
// which many peers may share. Addresses that the user named at another port are not affected.
func (c *List) Ban(addr netip.AddrPort) {
	addr = netaddr.Unmap(addr)
	expiring.Remember(c.bans, banKey(addr), maxBans)
	expiring.Remember(c.liars, addr, maxBans)
	c.dropBanned(addr.Addr())
}

// BanHost refuses every port of an address for good, whatever the source.
func (c *List) BanHost(addr netip.Addr) {
	c.hosts[addr.Unmap()] = struct{}{}
	c.dropBanned(addr.Unmap())
}

// dropBanned drops those candidates at an address that are now banned.
func (c *List) dropBanned(at netip.Addr) {
	for a, k := range c.all {
		if a.Addr() == at && c.Banned(a) {
			c.drop(k)
		}
	}
}

// Banned reports whether addr may neither be dialled nor accepted.
func (c *List) Banned(addr netip.AddrPort) bool {
	addr = netaddr.Unmap(addr)
	_, banned := c.bans[banKey(addr)]
	_, itself := c.liars[addr]
	_, host := c.hosts[addr.Addr()]
	return host || banned && (itself || !c.Named(addr))
}

// Named reports whether the user named addr, so that the peer whose connection comes from there or leads there keeps its place,
// whichever end made it. That a peer says that it listens at addr is not enough: any other behind the same router could say so.
// One that has the router send from the very port of addr gains a place at most.
func (c *List) Named(addr netip.AddrPort) bool {
	_, named := c.named[netaddr.Unmap(addr)]
	return named
}

// Origin returns what a peer at addr is blamed as for what it sends: what Ban bans with addr. A peer that dials us comes from another port
// each time.
func (c *List) Origin(addr netip.AddrPort) netip.AddrPort {
	if c.Named(addr) {
		return netaddr.Unmap(addr)
	}
	return banKey(netaddr.Unmap(addr))
}

// banKey returns the key under which a ban of an unmapped address is recorded.
func banKey(addr netip.AddrPort) netip.AddrPort {
	if netaddr.IsLocal(addr.Addr()) {
		return addr
	}
	return netip.AddrPortFrom(addr.Addr(), 0)
}

// Bans returns how many addresses are banned.
func (c *List) Bans() int { return len(c.bans) + len(c.hosts) }
