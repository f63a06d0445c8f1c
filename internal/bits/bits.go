// Package bits has the set of pieces, or of blocks, that everything in this module counts with, and
// its wire form. A set belongs to its caller, who guards it: it has no lock.
package bits

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/bits"
)

// Set is a set of indices, 0 to Len()-1. The zero value is empty and has no room. Copies share their
// indices; Clone returns one that does not.
type Set struct {
	n     int      // how many indices there are
	count int      // how many of them are set
	words []uint64 // index i is bit 63-i%64 of word i/64, so that big-endian words are the wire form
}

// New returns an empty set with room for n indices.
func New(n int) Set {
	return Set{n: n, words: make([]uint64, (n+63)/64)}
}

// Full returns a set of all of its n indices.
func Full(n int) Set {
	b := New(n)
	for i := range b.words {
		b.words[i] = ^uint64(0)
	}
	if spare := len(b.words)*64 - n; spare > 0 {
		b.words[len(b.words)-1] <<= spare
	}
	b.count = n
	return b
}

// Parse reads the wire form of a bitfield of n pieces (BEP 3: the high bit of the first byte is
// piece 0). A wrong length and a spare bit that is set are errors.
func Parse(p []byte, n int) (Set, error) {
	if len(p) != (n+7)/8 {
		return Set{}, fmt.Errorf("bitfield of %d bytes for %d pieces, want %d", len(p), n, (n+7)/8)
	}
	if spare := len(p)*8 - n; spare > 0 && p[len(p)-1]&(1<<spare-1) != 0 {
		return Set{}, errors.New("bitfield with spare bits set")
	}
	b := New(n)
	i := 0
	for ; len(p) >= 8; p, i = p[8:], i+1 {
		b.words[i] = binary.BigEndian.Uint64(p)
	}
	for j, c := range p {
		b.words[i] |= uint64(c) << (56 - 8*j)
	}
	for _, w := range b.words {
		b.count += bits.OnesCount64(w)
	}
	return b, nil
}

// AppendTo appends the wire form, (Len()+7)/8 bytes, to p.
func (b *Set) AppendTo(p []byte) []byte {
	end := len(p) + (b.n+7)/8
	for _, w := range b.words {
		p = binary.BigEndian.AppendUint64(p, w)
	}
	return p[:end]
}

// Len is how many indices there are, set or not.
func (b Set) Len() int { return b.n }

// Count is how many indices are set.
func (b Set) Count() int { return b.count }

// Full reports whether every index is set.
func (b *Set) Full() bool { return b.count == b.n }

// Has reports whether i is set. An index out of range is not.
func (b Set) Has(i int) bool {
	return uint(i) < uint(b.n) && b.words[i>>6]&(1<<(63-i&63)) != 0
}

// All yields the indices that are set, in ascending order.
func (b Set) All() iter.Seq[int] {
	return func(yield func(int) bool) {
		for k, w := range b.words {
			for w != 0 {
				z := bits.LeadingZeros64(w)
				w &^= 1 << (63 - z)
				if !yield(k<<6 + z) {
					return
				}
			}
		}
	}
}

// AllAnd yields the indices that are set in both, which must have the same length, in ascending order from the multiple of 64
// at or below start, and then those before it.
func (b *Set) AllAnd(c *Set, start int) iter.Seq[int] {
	return func(yield func(int) bool) {
		first := start / 64
		for n := range b.words {
			k := (first + n) % len(b.words)
			for w := b.words[k] & c.words[k]; w != 0; {
				z := bits.LeadingZeros64(w)
				w &^= 1 << (63 - z)
				if !yield(k<<6 + z) {
					return
				}
			}
		}
	}
}

// Next returns the first index from i on that is set, or Len() if there is none. i must not be negative.
func (b *Set) Next(i int) int {
	if i >= b.n {
		return b.n
	}
	w := b.words[i>>6] & (^uint64(0) >> (i & 63))
	for k := i >> 6; ; w = b.words[k] {
		if w != 0 {
			return k<<6 + bits.LeadingZeros64(w)
		}
		if k++; k == len(b.words) {
			return b.n
		}
	}
}

// Add sets i, which must be in range, and reports whether that changed anything.
func (b *Set) Add(i int) bool {
	if m := uint64(1) << (63 - i&63); b.words[i>>6]&m == 0 {
		b.words[i>>6] |= m
		b.count++
		return true
	}
	return false
}

// Remove unsets i, which must be in range, and reports whether that changed anything.
func (b *Set) Remove(i int) bool {
	if m := uint64(1) << (63 - i&63); b.words[i>>6]&m != 0 {
		b.words[i>>6] &^= m
		b.count--
		return true
	}
	return false
}

// Clone returns a copy that shares nothing with b.
func (b *Set) Clone() Set {
	c := *b
	c.words = append([]uint64(nil), b.words...)
	return c
}

// AddAll sets the indices that are set in c, which must have the same length.
func (b *Set) AddAll(c *Set) {
	b.count = 0
	for i, w := range c.words {
		b.words[i] |= w
		b.count += bits.OnesCount64(b.words[i])
	}
}

// RemoveAll unsets the indices that are set in c, which must have the same length.
func (b *Set) RemoveAll(c *Set) {
	b.count = 0
	for i, w := range c.words {
		b.words[i] &^= w
		b.count += bits.OnesCount64(b.words[i])
	}
}

// CountAnd is how many indices are set in both. Both must have the same length.
func (b *Set) CountAnd(c *Set) int {
	n := 0
	for i, w := range b.words {
		n += bits.OnesCount64(w & c.words[i])
	}
	return n
}
