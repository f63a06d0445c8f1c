package peerlist

import (
	"net/netip"
	"slices"
)

// maxRelays is how many peers are remembered that may introduce us to a candidate.
const maxRelays = 4

// AddRelay records that the peer at relay, which named addr, may introduce us to it (BEP 55).
func (c *List) AddRelay(addr, relay netip.AddrPort) {
	if k := c.get(addr); k != nil {
		k.relays = slices.DeleteFunc(k.relays, func(r netip.AddrPort) bool { return r == relay })
		k.relays = slices.Insert(k.relays, 0, relay)
		k.relays = k.relays[:min(len(k.relays), maxRelays)]
	}
}

// DropRelay records that the peer at relay does not introduce us to addr. It reports whether it might have.
func (c *List) DropRelay(addr, relay netip.AddrPort) bool {
	k := c.get(addr)
	if k == nil || !slices.Contains(k.relays, relay) {
		return false
	}
	k.relays = slices.DeleteFunc(k.relays, func(r netip.AddrPort) bool { return r == relay })
	return true
}

// Relays are the peers that may introduce us to addr; the one that named it last comes first.
func (c *List) Relays(addr netip.AddrPort) []netip.AddrPort {
	if k := c.get(addr); k != nil {
		return slices.Clone(k.relays)
	}
	return nil
}

// Take marks a candidate as dialling, as if Next had returned it, even if it is not due. It returns false if the
// candidate is unknown, is being dialled, or is connected.
//
// Any peer may have caused that dial. So if the dial fails, the candidate gets its former standing back, unless news is set.
func (c *List) Take(addr netip.AddrPort, news bool) bool {
	k := c.get(addr)
	if k == nil || k.is(isDialling) || k.is(isConnected) {
		return false
	}
	was := k.standing
	c.move(k, isDialling)
	if !news {
		k.taken = was
	}
	return true
}
