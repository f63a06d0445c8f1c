package peerlist

import (
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/extaddr"
	"github.com/shoal-go/torrent/internal/netaddr"
)

// moveEvery is the least interval in which peers make us believe another external address, for which all candidates are ordered
// again.
const moveEvery = time.Second

// external is how the world sees us, over IPv4 and IPv6.
type external struct {
	votes [netaddr.Families]extaddr.Vote
	addrs [netaddr.Families]netip.AddrPort // that are believed; invalid if unknown
	moved time.Time                        // when peers last changed one
}

// IsSelf reports whether addr is our own, as far as we know.
func (c *List) IsSelf(addr netip.AddrPort) bool {
	addr = netaddr.Unmap(addr)
	_, ours := c.self[addr]
	return ours || addr == c.External(netaddr.FamilyOf(addr.Addr()))
}

// SetExternal records our external address as a router reports it, with the port that we listen at. It is believed until peers
// agree on another.
func (c *List) SetExternal(addr netip.AddrPort) {
	addr = netaddr.Unmap(addr)
	vote := &c.external.votes[netaddr.FamilyOf(addr.Addr())]
	vote.Route(addr.Addr())
	if addr.Addr() == vote.Winner() {
		c.believe(addr)
	}
}

// Told records that a peer says that our external address is addr, where the port is the one that we listen at. Each is believed
// only when peers of several networks agree: it determines whom we dial first, and whom we take for ourselves.
func (c *List) Told(by netip.Addr, addr netip.AddrPort, now time.Time) {
	by, addr = by.Unmap(), netaddr.Unmap(addr)
	f := netaddr.FamilyOf(addr.Addr())
	if netaddr.FamilyOf(by) != f {
		return
	}
	e := &c.external
	e.votes[f].Cast(netip.AddrPortFrom(narrowest(by).Addr(), 0), addr.Addr(), false)
	winner := e.votes[f].Winner()
	if winner.IsValid() && winner != e.addrs[f].Addr() && (e.moved.IsZero() || now.Sub(e.moved) >= moveEvery) {
		e.moved = now
		c.believe(netip.AddrPortFrom(winner, addr.Port()))
	}
}

// ForgetVotes forgets what was said of our external addresses, because the network has changed.
func (c *List) ForgetVotes() { c.external.votes = [netaddr.Families]extaddr.Vote{} }

// believe sets our external address of a family. It determines the canonical priority of all candidates of that family.
func (c *List) believe(addr netip.AddrPort) {
	f := netaddr.FamilyOf(addr.Addr())
	if c.external.addrs[f] == addr {
		return
	}
	c.external.addrs[f] = addr
	for _, k := range c.all {
		if netaddr.FamilyOf(k.addr.Addr()) == f {
			k.priority = c.Priority(k.addr)
		}
	}
	for _, n := range c.namers {
		n.ready.FixAll()
	}
}

// External returns our external address of an address family; invalid if unknown.
func (c *List) External(f netaddr.Family) netip.AddrPort { return c.external.addrs[f] }

// Priority returns the canonical priority (BEP 40) if our external address is known, otherwise a random one.
func (c *List) Priority(addr netip.AddrPort) uint32 {
	if e := c.External(netaddr.FamilyOf(addr.Addr())); e.IsValid() {
		return netaddr.Priority(e, addr)
	}
	return c.rng.Uint32()
}
