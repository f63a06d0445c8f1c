// Package merkle implements the hash trees of version 2 (BEP 52): binary trees of SHA-256 over the blocks of one file,
// 16 KiB each. Leaves behind the end of the file are zeros, so that every tree is full.
//
// Levels count from the leaves, which are level 0; a tree of height h has 2^h leaves and its root at level h. A layer is the
// hashes of one level, one behind another, without those that cover nothing of the file.
//
// All of it is plain data.
package merkle

import (
	"crypto/sha256"
	"hash"
	"math/bits"
)

const (
	// BlockSize is how many bytes a leaf covers. Only the last of a file covers fewer.
	BlockSize = 16 << 10
	// Size is the length of a hash in bytes.
	Size = sha256.Size
)

// Hash is a node of a tree.
type Hash [Size]byte

// Blocks is how many blocks a file of length bytes has.
func Blocks(length int64) int64 { return (length + BlockSize - 1) / BlockSize }

// Height returns the height of the lowest tree with at least n leaves.
func Height(n int64) int { return bits.Len64(uint64(max(n, 1) - 1)) }

// HashBlock is the leaf of one block.
func HashBlock(b []byte) Hash { return sha256.Sum256(b) }

// join returns the parent of two nodes.
func join(left, right *Hash) Hash {
	var both [2 * Size]byte
	copy(both[:], left[:])
	copy(both[Size:], right[:])
	return sha256.Sum256(both[:])
}

// pads are the nodes that cover nothing of a file, by level. They never change.
var pads = func() (p [64]Hash) {
	for level := range len(p) - 1 {
		p[level+1] = join(&p[level], &p[level])
	}
	return p
}()

// A stack folds consecutive nodes of one level into their tree. It holds at most one node a level.
type stack struct {
	nodes []Hash
	n     int64 // pushed
}

func (s *stack) push(h Hash) {
	s.n++
	for k := s.n; k&1 == 0; k >>= 1 {
		last := len(s.nodes) - 1
		h = join(&s.nodes[last], &h)
		s.nodes = s.nodes[:last]
	}
	s.nodes = append(s.nodes, h)
}

// root returns the root, at level height, of the nodes pushed, which are of level base, with padding behind them. The nodes
// must fit below that root. The stack must not be used afterwards.
func (s *stack) root(base, height int) Hash {
	var h Hash // of the last nodes, with padding, once there is any of it
	padded := false
	for level, n := base, s.n; level < height; level, n = level+1, n>>1 {
		switch {
		case n&1 == 1 && padded:
			left := s.pop()
			h = join(&left, &h)
		case n&1 == 1:
			left := s.pop()
			h, padded = join(&left, &pads[level]), true
		case padded:
			h = join(&h, &pads[level])
		}
	}
	switch {
	case padded:
		return h
	case s.n == 0:
		return pads[height]
	}
	return s.pop()
}

func (s *stack) pop() Hash {
	last := len(s.nodes) - 1
	h := s.nodes[last]
	s.nodes = s.nodes[:last]
	return h
}

func (s *stack) reset() { s.nodes, s.n = s.nodes[:0], 0 }

// A Hasher computes the root of the bytes written to it, in memory that grows with the logarithm of their number. It belongs to
// one goroutine; several make the parts of one tree on all cores.
type Hasher struct {
	sha   hash.Hash
	fill  int // bytes of the block that has begun
	stack stack
}

// NewHasher returns a Hasher to which nothing was written.
func NewHasher() *Hasher { return &Hasher{sha: sha256.New()} }

// Write adds bytes. It never fails.
func (h *Hasher) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		k := min(len(p), BlockSize-h.fill)
		h.sha.Write(p[:k])
		if h.fill += k; h.fill == BlockSize {
			h.leaf()
		}
		p = p[k:]
	}
	return n, nil
}

func (h *Hasher) leaf() {
	var leaf Hash
	h.sha.Sum(leaf[:0])
	h.stack.push(leaf)
	h.sha.Reset()
	h.fill = 0
}

// Sum returns the root of a tree of the given height over the bytes written since the last Sum, which must fit into it.
// The next Write begins a new tree.
func (h *Hasher) Sum(height int) Hash {
	if h.fill > 0 {
		h.leaf()
	}
	root := h.stack.root(0, height)
	h.stack.reset()
	return root
}

// Reset discards the bytes written so far.
func (h *Hasher) Reset() {
	h.sha.Reset()
	h.fill = 0
	h.stack.reset()
}

// Root returns the root, at level height, over a layer of level base, which must fit into that tree.
func Root(layer []byte, base, height int) Hash {
	var s stack
	for ; len(layer) >= Size; layer = layer[Size:] {
		s.push(Hash(layer[:Size]))
	}
	return s.root(base, height)
}
