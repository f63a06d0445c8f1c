package torrent

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"

	"github.com/shoal-go/torrent/internal/layout"
)

// simTruth is what a simulated swarm shares: all bytes of its content.
type simTruth struct {
	layout.Layout
	infoHash [20]byte
	data     []byte // repeats where it is shorter than the content, which stands for much in little memory
}

// newSimTruth makes content from a seed number.
func newSimTruth(seed uint64, pieceLength, length int64) *simTruth {
	return newTruth(seed, pieceLength, length, length)
}

// newSimRepeatingTruth makes content of any size whose pieces are all alike.
func newSimRepeatingTruth(seed uint64, pieceLength, length int64) *simTruth {
	return newTruth(seed, pieceLength, length, pieceLength)
}

func newTruth(seed uint64, pieceLength, length, differs int64) *simTruth {
	c := &simTruth{Layout: layout.New(pieceLength, layout.File{Path: "content", Length: length}), data: make([]byte, differs)}
	binary.BigEndian.PutUint64(c.infoHash[:], seed)
	c.infoHash[19] = 1
	var key [32]byte
	binary.LittleEndian.PutUint32(key[:], uint32(seed))
	rand.NewChaCha8(key).Read(c.data)
	return c
}

// piece is the content of a piece. It must not be written to.
func (c *simTruth) piece(i int) []byte { return c.run(c.PieceOffset(i), c.PieceSize(i)) }

// run is the n bytes at an offset, which lie within a piece. It must not be written to.
func (c *simTruth) run(offset, n int64) []byte {
	offset %= int64(len(c.data))
	return c.data[offset : offset+n]
}

// equal tells whether b is what the content has at an offset.
func (c *simTruth) equal(offset int64, b []byte) bool {
	for len(b) > 0 {
		n := min(int64(len(b)), c.PieceLength()-offset%c.PieceLength())
		if !bytes.Equal(b[:n], c.run(offset, n)) {
			return false
		}
		b, offset = b[n:], offset+n
	}
	return true
}

// block is the content of a block, or nil where there is none such.
func (c *simTruth) block(piece, begin, length uint32) []byte {
	if int64(piece) >= int64(c.NumPieces()) || int64(begin)+int64(length) > c.PieceSize(int(piece)) {
		return nil
	}
	return c.run(c.PieceOffset(int(piece))+int64(begin), int64(length))
}
