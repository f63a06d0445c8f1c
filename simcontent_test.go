package torrent

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"sync"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
)

// simContent is what a simulated swarm shares: a torrent, and all of its bytes.
type simContent struct {
	*Torrent
	data []byte // repeats where it is shorter than the content, which stands for much in little memory
}

// newSimContent makes content from a seed number, cut into files of the given lengths.
func newSimContent(seed uint64, pieceLength int64, files ...int64) *simContent {
	c := &simContent{Torrent: &Torrent{name: fmt.Sprintf("content-%d", seed), multi: len(files) > 1}}
	list := make([]layout.File, len(files))
	for i, n := range files {
		path := c.name
		if c.multi {
			path = fmt.Sprintf("%s/dir-%d/file-%d", c.name, i%3, i)
		}
		list[i] = layout.File{Path: path, Length: n}
	}
	c.layout = layout.New(pieceLength, list...)
	c.length = c.layout.Size()
	binary.BigEndian.PutUint64(c.infoHash[:], seed)
	c.infoHash[19] = 1
	c.data = randomBytes(seed, int(c.layout.Size()))
	for i := range c.NumPieces() {
		sum := sha1.Sum(c.run(c.layout.PieceOffset(i), c.layout.PieceSize(i)))
		c.pieces = append(c.pieces, sum[:]...)
	}
	return c
}

// newSimRepeating makes one file of any size whose pieces are all alike.
func newSimRepeating(seed uint64, pieceLength, length int64) *simContent {
	c := newSimContent(seed, pieceLength, pieceLength)
	c.layout = layout.New(pieceLength, layout.File{Path: c.name, Length: length})
	c.length = length
	for len(c.pieces) < 20*int(length/pieceLength) {
		c.pieces = append(c.pieces, c.pieces[:20]...)
	}
	if length%pieceLength > 0 {
		sum := sha1.Sum(c.data[:length%pieceLength])
		c.pieces = append(c.pieces, sum[:]...)
	}
	return c
}

// run is the n bytes at an offset, which lie within a piece. It must not be written to.
func (c *simContent) run(offset, n int64) []byte {
	offset %= int64(len(c.data))
	return c.data[offset : offset+n]
}

// equal tells whether b is what the content has at an offset.
func (c *simContent) equal(offset int64, b []byte) bool {
	for len(b) > 0 {
		n := min(int64(len(b)), c.layout.PieceLength()-offset%c.layout.PieceLength())
		if !bytes.Equal(b[:n], c.run(offset, n)) {
			return false
		}
		b, offset = b[n:], offset+n
	}
	return true
}

// block is the content of a block, or nil where there is none such.
func (c *simContent) block(piece, begin, length uint32) []byte {
	if int64(piece) >= int64(c.NumPieces()) || int64(begin)+int64(length) > c.layout.PieceSize(int(piece)) {
		return nil
	}
	return c.run(c.layout.PieceOffset(int(piece))+int64(begin), int64(length))
}

// simStorage holds any part of a simContent without holding its bytes: what is written must be
// the truth, so that it is enough to remember which blocks came.
type simStorage struct {
	content *simContent
	mu      sync.Mutex
	written bits.Set // by block, counted through the whole content
	wrong   []int64  // offsets at which something else than the truth was written
}

func newSimStorage(c *simContent) *simStorage {
	return &simStorage{content: c, written: bits.New(c.NumPieces() * c.blocksAPiece())}
}

func (c *simContent) blocksAPiece() int {
	return int((c.layout.PieceLength() + blockSize - 1) / blockSize)
}

// fill makes the storage hold everything.
func (s *simStorage) fill() *simStorage {
	s.written = bits.Full(s.written.Len())
	return s
}

// open has the signature of Options.Storage.
func (s *simStorage) open(*Torrent) (Storage, error) { return s, nil }

func (s *simStorage) WriteAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.each(p, off, func(b []byte, at int64, block int, whole bool) error {
		if !bytes.Equal(b, s.content.run(at, int64(len(b)))) {
			s.wrong = append(s.wrong, at)
		} else if whole {
			s.written.Add(block)
		}
		return nil
	})
}

func (s *simStorage) ReadAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.each(p, off, func(b []byte, at int64, block int, _ bool) error {
		if !s.written.Has(block) {
			return fs.ErrNotExist
		}
		copy(b, s.content.run(at, int64(len(b))))
		return nil
	})
}

// each calls do for the part of p in each block, and says whether that is the whole block.
func (s *simStorage) each(p []byte, off int64, do func(b []byte, at int64, block int, whole bool) error) (int, error) {
	c, n := s.content, 0
	for n < len(p) {
		at := off + int64(n)
		if at >= c.layout.Size() {
			return n, io.EOF
		}
		piece := int(at / c.layout.PieceLength())
		begin := at % c.layout.PieceLength()
		left := min(blockSize-begin%blockSize, c.layout.PieceSize(piece)-begin)
		b := p[n:min(len(p), n+int(left))]
		whole := begin%blockSize == 0 && len(b) == int(left)
		if err := do(b, at, piece*c.blocksAPiece()+int(begin/blockSize), whole); err != nil {
			return n, err
		}
		n += len(b)
	}
	return n, nil
}

func (s *simStorage) Sync() error  { return nil }
func (s *simStorage) Close() error { return nil }

func randomBytes(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1], key[2], key[3] = byte(seed), byte(seed>>8), byte(seed>>16), byte(seed>>24)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}
