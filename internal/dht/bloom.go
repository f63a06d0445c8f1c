package dht

import (
	"crypto/sha1"
	"math"
	"math/bits"
	"net/netip"
)

// filter is a Bloom filter of addresses (BEP 33), in which swarms are counted across nodes.
type filter [256]byte

func (f *filter) add(ip netip.Addr) {
	sum := sha1.Sum(ip.AsSlice())
	for _, i := range [2]int{int(sum[0]) | int(sum[1])<<8, int(sum[2]) | int(sum[3])<<8} {
		i %= 8 * len(f)
		f[i/8] |= 1 << (i % 8)
	}
}

// join adds what another filter holds.
func (f *filter) join(other []byte) {
	for i := range f {
		f[i] |= other[i]
	}
}

// count estimates how many addresses the filter holds.
func (f *filter) count() float64 {
	const m = 8 * len(f)
	zeros := m
	for _, b := range f {
		zeros -= bits.OnesCount8(b)
	}
	if zeros == m {
		return 0
	}
	c := max(zeros, 1)
	return math.Log(float64(c)/float64(m)) / (2 * math.Log1p(-1/float64(m)))
}
