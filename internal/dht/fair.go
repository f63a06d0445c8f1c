package dht

import (
	"encoding/binary"
	"net/netip"

	"github.com/shoal-go/torrent/internal/krpc"
	"github.com/shoal-go/torrent/internal/netaddr"
)

// maker is the network that something was first stored from, in less space: public networks of both families
// each have a number, and of local nodes a hash does.
type maker uint64

func makerOf(a netip.AddrPort) maker {
	p := networkOf(a).Addr().As16()
	high, low := binary.BigEndian.Uint64(p[:]), binary.BigEndian.Uint64(p[8:])
	switch {
	case netaddr.IsLocal(a.Addr()):
		return maker((high ^ low*0x9e3779b97f4a7c15) + uint64(a.Port())*0xc2b2ae3d27d4eb4f)
	case a.Addr().Is4():
		return maker(uint32(low))
	}
	return maker(high)
}

// makers counts the entries of a store by their makers, so that a full store evicts entries of the maker that has the
// most.
type makers map[maker]int32

func (m makers) add(k maker, n int32) {
	if m[k] += n; m[k] == 0 {
		delete(m, k)
	}
}

// victim is the entry of a full store that makes room for one of target that another network makes, and
// whether there is one: of the network with the most entries, if that has at least two more than the other,
// the farthest from self; else the farthest of all, if target is nearer. Lookups end near their target, so
// what is far from here is hardly ever found.
func victim[E any](store map[ID]E, madeBy func(E) maker, m makers, self, target ID, by maker) (id ID, ok bool) {
	var greedy, far ID
	most := int32(0)
	for id, e := range store {
		n := m[madeBy(e)]
		if n > most || n == most && krpc.Nearer(self, greedy, id) {
			greedy, most = id, n
		}
		if !ok || krpc.Nearer(self, far, id) {
			far, ok = id, true
		}
	}
	if most >= m[by]+2 {
		return greedy, true
	}
	return far, ok && krpc.Nearer(self, target, far)
}
