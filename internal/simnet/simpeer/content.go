package simpeer

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"

	"github.com/shoal-go/torrent/internal/layout"
)

// Content is what a simulated swarm shares: its layout and all of its bytes.
type Content struct {
	layout.Layout
	InfoHash [20]byte
	data     []byte // repeats if it is shorter than the content, so that little memory holds much content
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
