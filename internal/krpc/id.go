package krpc

import (
	"encoding/binary"
	"encoding/hex"
	"math/bits"
	"math/rand/v2"
)

// ID is a point of the space that nodes, info hashes and items share.
type ID [20]byte

func (a ID) String() string { return hex.EncodeToString(a[:]) }

// RandomID draws an id.
func RandomID(rng *rand.Rand) (a ID) {
	binary.BigEndian.PutUint64(a[:], rng.Uint64())
	binary.BigEndian.PutUint64(a[8:], rng.Uint64())
	binary.BigEndian.PutUint32(a[16:], rng.Uint32())
	return a
}

// Common returns how many leading bits a and b share, 160 if they are the same. The more they are, the
// nearer is one to the other.
func Common(a, b ID) int {
	for i := 0; i < 16; i += 8 {
		if x := binary.BigEndian.Uint64(a[i:]) ^ binary.BigEndian.Uint64(b[i:]); x != 0 {
			return 8*i + bits.LeadingZeros64(x)
		}
	}
	return 128 + bits.LeadingZeros32(binary.BigEndian.Uint32(a[16:])^binary.BigEndian.Uint32(b[16:]))
}

// Nearer reports whether a is nearer to target than b: less by XOR.
func Nearer(target, a, b ID) bool {
	for i := 0; i < 16; i += 8 {
		t := binary.BigEndian.Uint64(target[i:])
		if x, y := t^binary.BigEndian.Uint64(a[i:]), t^binary.BigEndian.Uint64(b[i:]); x != y {
			return x < y
		}
	}
	t := binary.BigEndian.Uint32(target[16:])
	return t^binary.BigEndian.Uint32(a[16:]) < t^binary.BigEndian.Uint32(b[16:])
}

// WithCommon draws an id that shares exactly n leading bits with a; n is below 160.
func WithCommon(rng *rand.Rand, a ID, n int) ID {
	b := RandomID(rng)
	copy(b[:n/8], a[:n/8])
	keep := ^byte(0xff >> (n % 8)) // the bits of byte n/8 that are shared
	first := byte(0x80 >> (n % 8)) // the first that is not
	b[n/8] = a[n/8]&keep | ^a[n/8]&first | b[n/8]&^(keep|first)
	return b
}

// parseID is the id in s, if it is one.
func parseID(s []byte) (a ID, ok bool) {
	return a, len(s) == len(a) && copy(a[:], s) == len(a)
}
