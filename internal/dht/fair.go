package dht

import (
	"net/netip"

	"github.com/shoal-go/torrent/internal/krpc"
)

// makers counts what a store holds by the network that it was first stored from, so that a full store
// takes from whoever fills it.
type makers map[netip.AddrPort]int

func (m makers) add(maker netip.AddrPort, n int) {
	if m[maker] += n; m[maker] == 0 {
		delete(m, maker)
	}
}

// victim is the entry of a full store that makes room for one of target from the network maker, and
// whether there is one: of the network with the most entries, if that has at least two more than maker,
// the farthest from self; else the farthest of all, if target is nearer. Lookups end near their target, so
// what is far from here is hardly ever found.
func victim[E any](store map[ID]E, makerOf func(E) netip.AddrPort, m makers, self, target ID, maker netip.AddrPort) (id ID, ok bool) {
	var greedy, far ID
	most := 0
	for id, e := range store {
		n := m[makerOf(e)]
		if n > most || n == most && krpc.Nearer(self, greedy, id) {
			greedy, most = id, n
		}
		if !ok || krpc.Nearer(self, far, id) {
			far, ok = id, true
		}
	}
	if most >= m[maker]+2 {
		return greedy, true
	}
	return far, ok && krpc.Nearer(self, target, far)
}
