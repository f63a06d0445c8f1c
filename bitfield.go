package torrent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/bits"
)

// Bitfield is a set of piece indices, 0 to Len()-1. The zero value is empty and has no room.
//
// A Bitfield that the library hands out is the caller's own: nothing writes to it afterwards.
type Bitfield struct {
	n     int      // how many pieces there are
	count int      // how many of them are set
	words []uint64 // piece i is bit 63-i%64 of word i/64, so that big-endian words are the wire form
}

func newBitfield(n int) Bitfield {
	return Bitfield{n: n, words: make([]uint64, (n+63)/64)}
}

// fullBitfield returns a bitfield with all of its n pieces set.
func fullBitfield(n int) Bitfield {
	b := newBitfield(n)
	for i := range b.words {
		b.words[i] = ^uint64(0)
	}
	if spare := len(b.words)*64 - n; spare > 0 {
		b.words[len(b.words)-1] <<= spare
	}
	b.count = n
	return b
}

// parseBitfield reads the wire form of a bitfield of n pieces (BEP 3: the high bit of the first
// byte is piece 0). A wrong length and a spare bit that is set are errors.
func parseBitfield(p []byte, n int) (Bitfield, error) {
	if len(p) != (n+7)/8 {
		return Bitfield{}, fmt.Errorf("bitfield of %d bytes for %d pieces, want %d", len(p), n, (n+7)/8)
	}
	if spare := len(p)*8 - n; spare > 0 && p[len(p)-1]&(1<<spare-1) != 0 {
		return Bitfield{}, errors.New("bitfield with spare bits set")
	}
	b := newBitfield(n)
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

// appendTo appends the wire form, (Len()+7)/8 bytes, to p.
func (b *Bitfield) appendTo(p []byte) []byte {
	end := len(p) + (b.n+7)/8
	for _, w := range b.words {
		p = binary.BigEndian.AppendUint64(p, w)
	}
	return p[:end]
}

// Len is how many pieces the bitfield speaks of, set or not.
func (b Bitfield) Len() int { return b.n }

// Count is how many pieces are set.
func (b Bitfield) Count() int { return b.count }

// Has tells whether piece i is set. A piece out of range is not.
func (b Bitfield) Has(i int) bool {
	return uint(i) < uint(b.n) && b.words[i>>6]&(1<<(63-i&63)) != 0
}

// All yields the pieces that are set, in ascending order.
func (b Bitfield) All() iter.Seq[int] {
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

// full tells whether every piece is set.
func (b *Bitfield) full() bool { return b.count == b.n }

// set adds piece i and tells whether that changed anything. i must be in range.
func (b *Bitfield) set(i int) bool {
	if m := uint64(1) << (63 - i&63); b.words[i>>6]&m == 0 {
		b.words[i>>6] |= m
		b.count++
		return true
	}
	return false
}

// clear takes piece i out and tells whether that changed anything. i must be in range.
func (b *Bitfield) clear(i int) bool {
	if m := uint64(1) << (63 - i&63); b.words[i>>6]&m != 0 {
		b.words[i>>6] &^= m
		b.count--
		return true
	}
	return false
}

// clone returns a copy that shares nothing with b.
func (b *Bitfield) clone() Bitfield {
	c := *b
	c.words = append([]uint64(nil), b.words...)
	return c
}

// countAnd is how many pieces are set in both. Both must have the same length.
func (b *Bitfield) countAnd(c *Bitfield) int {
	n := 0
	for i, w := range b.words {
		n += bits.OnesCount64(w & c.words[i])
	}
	return n
}
