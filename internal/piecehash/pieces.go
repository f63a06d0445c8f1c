// Package piecehash knows which hashes the pieces of a torrent of version 2 must have (BEP 52), as far as they are known. It
// may be used from any goroutine.
package piecehash

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
	"sync"

	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/merkle"
)

// Pieces are the hashes of the pieces of one torrent. The roots of its files are fixed; the layers of those that are
// longer than a piece may become known later.
type Pieces struct {
	layout layout.Layout
	level  int                 // of a piece
	roots  []merkle.Hash       // by file
	files  map[merkle.Hash]int // longer than a block, by their roots; of several with one root the last
	twins  []int               // by file: the one before it that has the same root, or -1

	mu      sync.RWMutex
	missing []int          // all files whose layer is unknown, and some others behind the first of them
	layers  [][]byte       // of level, by file; nil is unknown, or of a file that has but one piece
	learned []int          // files whose layers were learned, one for each root
	blocks  map[int][]byte // the hashes of the blocks of pieces of which they are known

	growing sync.Mutex     // held while a tree is made, which takes long; whoever holds it may take mu
	trees   []*merkle.Tree // of layers, once needed
}

// New returns the pieces of the files of an aligned layout. roots are by file, those of padding unused; layers, too, are by
// file, and prove their roots.
func New(l layout.Layout, roots []merkle.Hash, layers [][]byte) *Pieces {
	p := &Pieces{
		layout: l, roots: roots, layers: layers,
		level:  bits.TrailingZeros64(uint64(l.PieceLength() / merkle.BlockSize)),
		trees:  make([]*merkle.Tree, len(roots)),
		files:  make(map[merkle.Hash]int),
		twins:  make([]int, len(roots)),
		blocks: make(map[int][]byte),
	}
	for i, root := range roots {
		f := l.File(i)
		if f.Pad || f.Length <= merkle.BlockSize {
			continue
		}
		p.twins[i] = -1
		if twin, ok := p.files[root]; ok {
			p.twins[i] = twin
		}
		p.files[root] = i
		if p.Layered(i) && layers[i] == nil {
			p.missing = append(p.missing, i)
		}
	}
	return p
}

// Level returns the level of a whole piece in the tree of a file that is longer than a piece.
func (p *Pieces) Level() int { return p.level }

// Root is the root of a file's tree.
func (p *Pieces) Root(file int) merkle.Hash { return p.roots[file] }

// Height returns the height of a file's tree.
func (p *Pieces) Height(file int) int {
	return merkle.Height(merkle.Blocks(p.layout.File(file).Length))
}

// Layered reports whether a file is longer than a piece, so that it has a piece layer.
func (p *Pieces) Layered(file int) bool { return p.layout.File(file).Length > p.layout.PieceLength() }

// FileOf is the file of a piece, and the piece's index in it.
func (p *Pieces) FileOf(piece int) (file, index int) {
	file = p.layout.FileAt(p.layout.PieceOffset(piece))
	return file, piece - p.layout.PieceAt(p.layout.File(file).Offset)
}

// HeightOf returns the height of a piece's tree. For the only piece of a file it is that of the file.
func (p *Pieces) HeightOf(piece int) int {
	if file, _ := p.FileOf(piece); !p.Layered(file) {
		return p.Height(file)
	}
	return p.level
}

// Hash returns the hash that a piece must have, if it is known.
func (p *Pieces) Hash(piece int) (h merkle.Hash, known bool) {
	file, index := p.FileOf(piece)
	if !p.Layered(file) {
		return p.roots[file], true
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.layers[file] == nil {
		return h, false
	}
	return merkle.Hash(p.layers[file][index*merkle.Size:]), true
}

// Known reports whether the hashes of all pieces of a file are known.
func (p *Pieces) Known(file int) bool {
	f := p.layout.File(file)
	if f.Pad || !p.Layered(file) {
		return true
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.layers[file] != nil
}

// Missing returns the files whose layer is unknown.
func (p *Pieces) Missing() (files []int) {
	p.FirstMissing(0, func(i int) bool {
		files = append(files, i)
		return false
	})
	return files
}

// FirstMissing returns the first file whose layer is unknown and for which which holds, and whether there is one. It looks from the
// file from on, and calls which under the lock. If there is none, file is the number of files.
func (p *Pieces) FirstMissing(from int, which func(file int) bool) (file int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := func(i int) bool { return p.layers[i] != nil }
	for len(p.missing) > 0 && known(p.missing[0]) {
		p.missing = p.missing[1:] // layers come in order, more or less, and there may be thousands
	}
	k, _ := slices.BinarySearch(p.missing, from)
	for _, i := range p.missing[k:] {
		if !known(i) && which(i) {
			return i, true
		}
	}
	return len(p.roots), false
}

// Learn takes the piece layer of a file, which it keeps, for all files with the same root, and returns these. It returns none if the
// layer is known already, or does not prove the root.
func (p *Pieces) Learn(file int, layer []byte) (files []int) {
	if p.Known(file) || !p.fits(file, layer) {
		return nil
	}
	return p.LearnProven(file, layer)
}

// LearnProven is like Learn for a layer that is known to prove the root of the file.
func (p *Pieces) LearnProven(file int, layer []byte) (files []int) {
	last, ok := p.files[p.roots[file]]
	if !ok || p.Known(file) { // known is that of all files with its root, too, of which there may be many
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := last; i >= 0; i = p.twins[i] {
		if p.layout.File(i).Length == p.layout.File(file).Length && p.layers[i] == nil {
			p.layers[i] = layer
			files = append(files, i)
		}
	}
	slices.Reverse(files)
	if len(files) > 0 {
		p.learned = append(p.learned, file)
	}
	return files
}

// Learned returns the layers that were learned, by the roots of their files. They must not be written to.
func (p *Pieces) Learned() map[merkle.Hash][]byte {
	p.mu.RLock()
	defer p.mu.RUnlock()
	all := make(map[merkle.Hash][]byte, len(p.learned))
	for _, file := range p.learned {
		all[p.roots[file]] = p.layers[file]
	}
	return all
}

// AppendLearned appends the layers that were learned for Recall, as many of them as take at most so many bytes. Each is the index of
// its file in 4 bytes, big-endian, and its hashes.
func (p *Pieces) AppendLearned(b []byte, most int) []byte {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, file := range p.learned {
		if layer := p.layers[file]; 4+len(layer) <= most {
			b = append(binary.BigEndian.AppendUint32(b, uint32(file)), layer...)
			most -= 4 + len(layer)
		}
	}
	return b
}

// Recall learns layers that AppendLearned appended for the same torrent. b may be any bytes: a layer that does not prove its
// root is ignored, and so is everything after it.
func (p *Pieces) Recall(b []byte) {
	for len(b) >= 4 {
		file := int(min(binary.BigEndian.Uint32(b), math.MaxInt32))
		if b = b[4:]; file >= len(p.roots) {
			return
		}
		first, end := p.layout.PiecesOf(file)
		n := merkle.Size * (end - first)
		if n > len(b) || !p.Known(file) && p.Learn(file, bytes.Clone(b[:n])) == nil {
			return
		}
		b = b[n:]
	}
}

// fits reports whether a layer proves the root of a file.
func (p *Pieces) fits(file int, layer []byte) bool {
	first, end := p.layout.PiecesOf(file)
	return len(layer) == merkle.Size*(end-first) && merkle.Root(layer, p.level, p.Height(file)) == p.roots[file]
}

// Tree returns the tree over the piece layer of a file that is longer than a piece, or nil if the layer is unknown. The first call
// for a file hashes its whole layer, while which only other calls of Tree wait.
func (p *Pieces) Tree(file int) *merkle.Tree {
	layer := p.Layer(file)
	p.growing.Lock()
	defer p.growing.Unlock()
	if p.trees[file] == nil && layer != nil {
		p.trees[file] = merkle.NewTree(layer, p.level, p.Height(file))
	}
	return p.trees[file]
}

// File is a file with the given root that is longer than a block.
func (p *Pieces) File(root merkle.Hash) (file int, ok bool) {
	file, ok = p.files[root]
	return file, ok
}

// Layer is the piece layer of a file, or nil if it has none or it is unknown. It must not be written to.
func (p *Pieces) Layer(file int) []byte {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.layers[file]
}

// LearnBlocks takes the hashes of the blocks of a piece, which it keeps, and which prove that of the piece. ForgetBlocks drops them.
func (p *Pieces) LearnBlocks(piece int, leaves []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.blocks[piece] = leaves
}

func (p *Pieces) ForgetBlocks(piece int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.blocks, piece)
}

// Block returns the hash that a block of a piece must have, if it is known.
func (p *Pieces) Block(piece, block int) (h merkle.Hash, known bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	leaves := p.blocks[piece]
	if leaves == nil {
		return h, false
	}
	return merkle.Hash(leaves[block*merkle.Size:]), true
}
