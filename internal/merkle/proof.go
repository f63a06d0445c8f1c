package merkle

import (
	"math/bits"
	"slices"
)

// A Request names hashes of one file (BEP 52): Length hashes from Index on at level Base, and the number of levels above them
// whose proof nodes are wanted.
type Request struct {
	Base, Index, Length, Proofs int
}

// Sound reports whether r is valid for a tree of the given height: Length is a power of two of at least two, and
// Index is a multiple of it. Any values of r may come from a stranger.
func (r Request) Sound(height int) bool {
	if r.Base < 0 || r.Base >= height || r.Length < 2 || r.Length&(r.Length-1) != 0 || r.Index < 0 || r.Proofs < 0 {
		return false
	}
	width := int64(1) << (height - r.Base)
	return r.Index%r.Length == 0 && int64(r.Index)+int64(r.Length) <= width && r.Proofs < 64
}

// top returns the level of the lowest node that covers all requested hashes.
func (r Request) top() int { return r.Base + bits.TrailingZeros(uint(r.Length)) }

// uncles returns how many nodes prove the requested hashes in a tree of the given height. Levels that follow from the hashes
// themselves are counted in Proofs but not sent, and the root is never sent.
func (r Request) uncles(height int) int {
	return max(0, min(r.Base+r.Proofs+1, height)-r.top())
}

// Hashes returns how many hashes answer r in a tree of the given height.
func (r Request) Hashes(height int) int { return r.Length + r.uncles(height) }

// A Tree answers requests for the hashes of one file, from a layer of it. It keeps the layers from the roots of runs up, a
// sixteenth of that layer in all, so that no answer costs more hashes than one run has.
type Tree struct {
	layer  []byte
	base   int
	height int
	above  [][]byte // the layers of level base+runLevels and up, to the root
}

// runLevels is how many levels lie between the layer and the roots of runs. A request for two hashes and their proof takes a few
// dozen bytes, so that a run of 512 hashes would cost far more than to send the answer.
const runLevels = 5

// Run is how many hashes of its layer a Tree joins at most to answer for fewer of them.
const Run = 1 << runLevels

// NewTree returns the tree of a layer of level base, which it keeps.
func NewTree(layer []byte, base, height int) *Tree {
	t := &Tree{layer: layer, base: base, height: height}
	for from, to := base, base+runLevels; to <= height; from, to = to, to+1 {
		layer = climb(layer, from, to)
		t.above = append(t.above, layer)
	}
	return t
}

// climb returns the layer of level to above a layer of level from.
func climb(layer []byte, from, to int) (above []byte) {
	for run := range slices.Chunk(layer, Size<<(to-from)) {
		root := Root(run, from, to)
		above = append(above, root[:]...)
	}
	return above
}

// Node is the node with an index at a level that is not below the tree's own layer.
func (t *Tree) Node(level, index int) Hash {
	layer, base := t.layer, t.base
	if k := level - (t.base + runLevels); k >= 0 && k < len(t.above) {
		layer, base = t.above[k], level
	}
	from := min(int64(index)<<(level-base)*Size, int64(len(layer)))
	end := min(from+Size<<(level-base), int64(len(layer)))
	return Root(layer[from:end], base, level)
}

// Append appends the answer to a sound request whose Base is not below the tree's layer: the hashes, padding included, and then
// the nodes that prove them, the lowest first.
func (t *Tree) Append(b []byte, r Request) []byte {
	b = slices.Grow(b, Size*r.Hashes(t.height))
	i, end := r.Index, r.Index+r.Length
	if n := len(t.layer) / Size; r.Base == t.base && i < n {
		b = append(b, t.layer[i*Size:min(end, n)*Size]...)
		i = min(end, n)
	}
	for ; i < end; i++ {
		h := t.Node(r.Base, i)
		b = append(b, h[:]...)
	}
	return t.AppendProof(b, r)
}

// AppendProof appends only the nodes that prove the requested hashes. They must not lie below the tree's layer.
func (t *Tree) AppendProof(b []byte, r Request) []byte {
	level := r.top()
	index := r.Index >> (level - r.Base)
	for range r.uncles(t.height) {
		h := t.Node(level, index^1)
		b = append(b, h[:]...)
		level, index = level+1, index>>1
	}
	return b
}

// Prove reports whether hashes answer a sound request for those of a tree with the given root and height. They prove
// themselves only if r asked for proofs up to the root.
func Prove(root Hash, height int, r Request, hashes []byte) bool {
	if len(hashes) != Size*r.Hashes(height) {
		return false
	}
	level := r.top()
	index := r.Index >> (level - r.Base)
	h := Root(hashes[:r.Length*Size], r.Base, level)
	for uncles := hashes[r.Length*Size:]; len(uncles) > 0; uncles = uncles[Size:] {
		uncle := Hash(uncles[:Size])
		if index&1 == 0 {
			h = join(&h, &uncle)
		} else {
			h = join(&uncle, &h)
		}
		level, index = level+1, index>>1
	}
	return level == height && h == root
}
