package peerlist

import (
	"net/netip"
	"slices"
)

// maxRelays is how many peers are remembered that may introduce us to a candidate.
const maxRelays = 16

// AddRelay records that the peer at relay, which named addr, may introduce us to it (BEP 55). Of a network only the last is remembered:
// peers that name a candidate and do not introduce us to it would leave no room for others. If there is no room all the same, it takes
// the place of the last, so that peers of many networks take at most one place of those that came before them.
func (c *List) AddRelay(addr, relay netip.AddrPort) {
	k := c.get(addr)
	if k == nil {
		return
	}
	i := slices.IndexFunc(k.relays, func(r netip.AddrPort) bool { return network(r.Addr()) == network(relay.Addr()) })
	if i < 0 && len(k.relays) == maxRelays {
		i = maxRelays - 1
	}
	if i >= 0 {
		k.relays[i] = relay
	} else {
		k.relays = append(k.relays, relay)
	}
}

// AskedRelay records that the peer at relay was asked to introduce us to addr. It is asked again after all others.
func (c *List) AskedRelay(addr, relay netip.AddrPort) {
	if c.DropRelay(addr, relay) {
		k := c.get(addr)
		k.relays = append(k.relays, relay)
	}
}

// DropRelay records that the peer at relay does not introduce us to addr, such as one that is not connected any more. It reports
// whether it might have.
func (c *List) DropRelay(addr, relay netip.AddrPort) bool {
	k := c.get(addr)
	if k == nil || !slices.Contains(k.relays, relay) {
		return false
	}
	k.relays = slices.DeleteFunc(k.relays, func(r netip.AddrPort) bool { return r == relay })
	return true
}

// Relays are the peers that may introduce us to addr; the one that was asked last comes last.
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
