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
	"github.com/shoal-go/torrent/internal/merkle"
	"github.com/shoal-go/torrent/internal/piecehash"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
)

// simContent is a torrent with the content that it describes.
type simContent struct {
	*Torrent
	truth *simpeer.Content
	bare  bool // of version 2, it lacks the piece layers, as what a magnet link leads to
}

// newSimContent makes content that is drawn from a seed number, cut into files of the given lengths.
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

// newSimVersion is newSimContent for a version. It lacks the piece layers of version 2 if it is to be bare.
func newSimVersion(v Version, bare bool, seed uint64, pieceLength int64, files ...int64) *simContent {
	c := newSimContent(seed, pieceLength, files...)
	if v == V1 {
		return c
	}
	var list []layout.File
	end := int64(0)
	for _, f := range c.layout.Files() {
		if fill := (pieceLength - end%pieceLength) % pieceLength; fill > 0 && f.Length > 0 {
			list = append(list, layout.File{Path: fmt.Sprintf("%s/.pad/%d", c.name, fill), Length: fill, Pad: true})
			end += fill
		}
		list = append(list, layout.File{Path: f.Path, Length: f.Length})
		end += f.Length
	}
	c.truth = simpeer.NewVersion2(seed, layout.NewAligned(pieceLength, list...), v == Hybrid)
	c.layout, c.version, c.infoHash, c.bare = c.truth.Layout, v, c.truth.InfoHash, bare
	copy(c.infoHashV2[:], c.truth.InfoHashV2[:])
	c.pieces = nil
	for i := range c.NumPieces() {
		if v == Hybrid {
			sum := sha1.Sum(c.truth.Run(c.layout.PieceOffset(i), c.layout.PieceSize(i)+c.layout.PieceFill(i)))
			c.pieces = append(c.pieces, sum[:]...)
		}
	}
	c.Torrent = c.own()
	return c
}

// own is the torrent as one client reads it: what its downloads learn, others do not know.
func (c *simContent) own() *Torrent {
	if c.version == V1 {
		return c.Torrent
	}
	t := *c.Torrent
	roots, layers := make([]merkle.Hash, t.layout.NumFiles()), make([][]byte, t.layout.NumFiles())
	for i := range roots {
		roots[i] = c.truth.Root(i)
		if !c.bare {
			layers[i] = c.truth.PieceLayer(i)
		}
	}
	t.hashes = piecehash.New(t.layout, roots, layers)
	return &t
}

// newSimRepeating makes one file of any length whose pieces are all alike.
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
	sums := map[*byte][sha1.Size]byte{} // by the first byte of a piece in memory, which pieces that are alike share
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

// simStorage is a Storage for a simContent that holds no bytes. What is written must be the content, so it is
// enough to record which blocks came.
type simStorage struct {
	content *simContent
	mu      sync.Mutex
	written bits.Set // by block, counted through the whole content
	wrong   []int64  // offsets at which anything but the content was written
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

// each calls do for the part of p in each block, with whether that is the whole block.
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

func (s *simStorage) Sync() error { return nil }

func (s *simStorage) Close() error { return nil }

func randomBytes(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1], key[2], key[3] = byte(seed), byte(seed>>8), byte(seed>>16), byte(seed>>24)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}
