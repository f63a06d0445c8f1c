package simpeer

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"

	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/merkle"
)

// Content is what a simulated swarm shares: its layout and all of its bytes.
type Content struct {
	layout.Layout
	InfoHash   [20]byte
	InfoHashV2 [20]byte // of version 2 (BEP 52), cut to what the protocol has room for: InfoHash if that is all; zero without it
	data       []byte   // repeats if it is shorter than the content, so that little memory holds much content

	trees []*merkle.Tree      // of version 2, by file; nil for padding and files without bytes
	files map[merkle.Hash]int // by their roots
}

// NewContent makes content that is drawn from a seed. Its info hash tells it from that of other seeds, and is
// that of no info dictionary.
func NewContent(seed uint64, pieceLength, length int64) *Content {
	return newContent(seed, pieceLength, length, length)
}

// NewRepeating makes content of any length whose pieces are all alike, and which takes the memory of one.
func NewRepeating(seed uint64, pieceLength, length int64) *Content {
	return newContent(seed, pieceLength, length, pieceLength)
}

// NewVersion2 makes content of version 2, or of a hybrid, that is drawn from a seed. Each file of the layout begins with a piece,
// behind padding.
func NewVersion2(seed uint64, l layout.Layout, hybrid bool) *Content {
	c := newContent(seed, l.PieceLength(), l.Size(), l.Size())
	c.Layout, c.InfoHashV2 = l, c.InfoHash
	if hybrid {
		c.InfoHashV2[19] = 2
	}
	c.trees, c.files = make([]*merkle.Tree, l.NumFiles()), make(map[merkle.Hash]int)
	for i, f := range l.Files() {
		b := c.data[f.Offset:f.End()]
		if f.Pad {
			clear(b)
		} else if f.Length > 0 {
			var leaves []byte
			for block := range slices.Chunk(b, merkle.BlockSize) {
				leaf := merkle.HashBlock(block)
				leaves = append(leaves, leaf[:]...)
			}
			c.trees[i] = merkle.NewTree(leaves, 0, c.height(i))
			c.files[c.Root(i)] = i
		}
	}
	return c
}

// height is that of a file's tree.
func (c *Content) height(file int) int { return merkle.Height(merkle.Blocks(c.File(file).Length)) }

// level is that of a piece in the trees.
func (c *Content) level() int { return merkle.Height(c.PieceLength() / merkle.BlockSize) }

// Root is the root of a file's tree; zero for padding, and for a file without bytes.
func (c *Content) Root(file int) (root merkle.Hash) {
	if t := c.trees[file]; t != nil {
		root = t.Node(c.height(file), 0)
	}
	return root
}

// PieceLayer is the hashes of the pieces of a file that is longer than one.
func (c *Content) PieceLayer(file int) (layer []byte) {
	if c.trees[file] == nil || c.File(file).Length <= c.PieceLength() {
		return nil
	}
	first, end := c.PiecesOf(file)
	for i := range end - first {
		h := c.trees[file].Node(c.level(), i)
		layer = append(layer, h[:]...)
	}
	return layer
}

func newContent(seed uint64, pieceLength, length, differs int64) *Content {
	c := &Content{Layout: layout.New(pieceLength, layout.File{Path: "content", Length: length}), data: make([]byte, differs)}
	binary.BigEndian.PutUint64(c.InfoHash[:], seed)
	c.InfoHash[19] = 1
	var key [32]byte
	binary.LittleEndian.PutUint32(key[:], uint32(seed))
	rand.NewChaCha8(key).Read(c.data)
	return c
}

// Piece is the content of a piece. It must not be written to.
func (c *Content) Piece(i int) []byte { return c.Run(c.PieceOffset(i), c.PieceSize(i)) }

// Run is the n bytes at an offset, which must lie within a piece. It must not be written to.
func (c *Content) Run(offset, n int64) []byte {
	offset %= int64(len(c.data))
	return c.data[offset : offset+n]
}

// Equal reports whether b is what the content has at an offset.
func (c *Content) Equal(offset int64, b []byte) bool {
	for len(b) > 0 {
		n := min(int64(len(b)), c.PieceLength()-offset%c.PieceLength())
		if !bytes.Equal(b[:n], c.Run(offset, n)) {
			return false
		}
		b, offset = b[n:], offset+n
	}
	return true
}

// Block is the content of a block, or nil if the content has no such block. It must not be written to.
func (c *Content) Block(piece, begin, length uint32) []byte {
	if int64(piece) >= int64(c.NumPieces()) || int64(begin)+int64(length) > c.PieceSize(int(piece)) {
		return nil
	}
	return c.Run(c.PieceOffset(int(piece))+int64(begin), int64(length))
}
