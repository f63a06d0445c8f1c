package merkle

import "math/bits"

// A Request names hashes of one file (BEP 52): Length of them from Index on at level Base, and so many levels above from which
// the nodes that prove them are wanted.
type Request struct {
	Base, Index, Length, Proofs int
}

// Sound reports whether a tree of the given height has what r names: a power of two of at least two hashes, at an
// index that is a multiple of it. All of it may be a stranger's.
func (r Request) Sound(height int) bool {
	if r.Base < 0 || r.Base >= height || r.Length < 2 || r.Length&(r.Length-1) != 0 || r.Index < 0 || r.Proofs < 0 {
		return false
	}
	width := int64(1) << (height - r.Base)
	return r.Index%r.Length == 0 && int64(r.Index)+int64(r.Length) <= width && r.Proofs < 64
}

// top is the level of the lowest node that covers all that is asked for.
func (r Request) top() int { return r.Base + bits.TrailingZeros(uint(r.Length)) }

// uncles is how many nodes prove what is asked for in a tree of the given height. The levels that the hashes themselves give are
// counted in Proofs but left out, and none is wanted of the root.
func (r Request) uncles(height int) int {
	return max(0, min(r.Base+r.Proofs+1, height)-r.top())
}

// Hashes is how many hashes answer r in a tree of the given height.
func (r Request) Hashes(height int) int { return r.Length + r.uncles(height) }

// A Tree answers requests for the hashes of one file, from a layer of it. It keeps the roots of runs of that layer, so that no
// answer costs more than one run and the roots.
type Tree struct {
	layer  []byte
	base   int
	height int
	runs   []byte // the nodes at level base+runLevels
}

// runLevels is how many levels lie between the layer and the roots of runs: 512 hashes, as many as one request asks for.
const runLevels = 9

// Run is how many hashes of its layer a Tree hashes at most to answer for fewer of them.
const Run = 1 << runLevels

// NewTree returns the tree of a layer of level base, which it keeps.
func NewTree(layer []byte, base, height int) *Tree {
	t := &Tree{layer: layer, base: base, height: height}
	if height > base+runLevels {
		for from := 0; from < len(layer); from += Size << runLevels {
			root := Root(layer[from:min(len(layer), from+Size<<runLevels)], base, base+runLevels)
			t.runs = append(t.runs, root[:]...)
		}
	}
	return t
}

// Node is the node with an index at a level that is not below the tree's own layer.
func (t *Tree) Node(level, index int) Hash {
	if level >= t.base+runLevels && t.runs != nil {
		return node(t.runs, t.base+runLevels, level, index)
	}
	return node(t.layer, t.base, level, index)
}

// node is a node over part of a layer of level base.
func node(layer []byte, base, level, index int) Hash {
	from := min(int64(index)<<(level-base)*Size, int64(len(layer)))
	end := min(from+Size<<(level-base), int64(len(layer)))
	return Root(layer[from:end], base, level)
}

// Append appends the answer to a sound request whose Base is not below the tree's layer: the hashes, padding included, and then
// the nodes that prove them, the lowest first.
func (t *Tree) Append(b []byte, r Request) []byte {
	for i := range r.Length {
		h := t.Node(r.Base, r.Index+i)
		b = append(b, h[:]...)
	}
	return t.AppendProof(b, r)
}

// AppendProof appends only the nodes that prove what is asked for. They must not lie below the tree's layer.
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
