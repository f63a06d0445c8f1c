package torrent

import (
	"bytes"
	"crypto/sha1"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"sync"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
)

// simContent is a torrent, and the content that it describes.
type simContent struct {
	*Torrent
	truth *simpeer.Content
}

// newSimContent makes content from a seed number, cut into files of the given lengths.
func newSimContent(seed uint64, pieceLength int64, files ...int64) *simContent {
	name := fmt.Sprintf("content-%d", seed)
	list := make([]layout.File, len(files))
	total := int64(0)
	for i, n := range files {
		path := name
		if len(files) > 1 {
			path = fmt.Sprintf("%s/dir-%d/file-%d", name, i%3, i)
		}
		list[i] = layout.File{Path: path, Length: n}
		total += n
	}
	return describe(name, simpeer.NewContent(seed, pieceLength, total), list...)
}

// newSimRepeating makes one file of any size whose pieces are all alike.
func newSimRepeating(seed uint64, pieceLength, length int64) *simContent {
	name := fmt.Sprintf("content-%d", seed)
	return describe(name, simpeer.NewRepeating(seed, pieceLength, length), layout.File{Path: name, Length: length})
}

// describe makes the torrent of some content.
func describe(name string, truth *simpeer.Content, files ...layout.File) *simContent {
	t := &Torrent{
		name: name, multi: len(files) > 1, length: truth.Size(),
		layout: layout.New(truth.PieceLength(), files...), infoHash: truth.InfoHash,
	}
	sums := map[*byte][sha1.Size]byte{} // of pieces that are alike, but for the last
	for i := range t.NumPieces() {
		p := truth.Piece(i)
		sum, known := sums[&p[0]]
		if !known || int64(len(p)) < truth.PieceLength() {
			sum = sha1.Sum(p)
			sums[&p[0]] = sum
		}
		t.pieces = append(t.pieces, sum[:]...)
	}
	return &simContent{Torrent: t, truth: truth}
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
		if !bytes.Equal(b, s.content.truth.Run(at, int64(len(b)))) {
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
		copy(b, s.content.truth.Run(at, int64(len(b))))
		return nil
	})
}

// each calls do for the part of p in each block, and says whether that is the whole block.
func (s *simStorage) each(p []byte, off int64, do func(b []byte, at int64, block int, whole bool) error) (int, error) {
	c, n := s.content.truth, 0
	for n < len(p) {
		at := off + int64(n)
		if at >= c.Size() {
			return n, io.EOF
		}
		piece := int(at / c.PieceLength())
		begin := at % c.PieceLength()
		left := min(blockSize-begin%blockSize, c.PieceSize(piece)-begin)
		b := p[n:min(len(p), n+int(left))]
		whole := begin%blockSize == 0 && len(b) == int(left)
		if err := do(b, at, piece*s.content.blocksAPiece()+int(begin/blockSize), whole); err != nil {
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
