// Package storagetest tests implementations of torrent.Storage.
package storagetest

import (
	"bytes"
	"crypto/sha1"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/shoal-go/torrent"
	"github.com/zeebo/bencode"
)

// pieceLength is that of all torrents here, in bytes: small, so that many pieces span files.
const pieceLength = 32 << 10

// Run tests every rule of torrent.Storage that can be tested from outside. open returns an empty storage for
// the torrent. It is called several times: for different torrents, while earlier storages may still be
// open, and again for one whose storage was closed. With -race it finds more. Reopen tests what a storage keeps when it
// is closed.
func Run(t *testing.T, open func(*torrent.Torrent) (torrent.Storage, error)) {
	for _, c := range []struct {
		name string
		try  func(*subject, *testing.T)
	}{
		{"what was written is read", (*subject).readsWhatWasWritten},
		{"in any order", (*subject).takesAnyOrder},
		{"what was never written", (*subject).knowsWhatIsMissing},
		{"the end", (*subject).knowsItsEnd},
		{"nothing at all", (*subject).takesNothing},
		{"written twice", (*subject).overwrites},
		{"buffers stay the caller's", (*subject).keepsNoBuffer},
		{"many at once", (*subject).servesManyAtOnce},
		{"torrents apart", (*subject).keepsTorrentsApart},
		{"opened again", (*subject).opensAgain},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &subject{open: open}
			s.torrent, s.content = makeTorrent(t, "content")
			s.Storage = s.opened(t, s.torrent)
			c.try(s, t)
			if err := s.Sync(); err != nil {
				t.Errorf("Sync: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
}

// subject is an open storage to be tested, and the content that it should hold.
type subject struct {
	torrent.Storage
	open    func(*torrent.Torrent) (torrent.Storage, error)
	torrent *torrent.Torrent
	content []byte
}

func (s *subject) opened(t *testing.T, tor *torrent.Torrent) torrent.Storage {
	t.Helper()
	st, err := s.open(tor)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return st
}

// write writes content[from:to].
func (s *subject) write(t *testing.T, from, to int) {
	t.Helper()
	if n, err := s.WriteAt(s.content[from:to], int64(from)); n != to-from || err != nil {
		t.Fatalf("WriteAt of %d bytes at %d: %d, %v", to-from, from, n, err)
	}
}

// check reads content[from:to] and compares.
func (s *subject) check(t *testing.T, from, to int) {
	t.Helper()
	got := make([]byte, to-from)
	if n, err := s.ReadAt(got, int64(from)); n != len(got) || err != nil && err != io.EOF {
		t.Fatalf("ReadAt of %d bytes at %d: %d, %v", len(got), from, n, err)
	}
	if !bytes.Equal(got, s.content[from:to]) {
		t.Fatalf("ReadAt of %d bytes at %d: other bytes than were written", len(got), from)
	}
}

// ranges are runs of the content that begin and end within files and pieces and at their ends.
func (s *subject) ranges(yield func(from, to int) bool) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		from := rng.IntN(len(s.content))
		if !yield(from, from+1+rng.IntN(min(100_000, len(s.content)-from))) {
			return
		}
	}
	end := 0
	for f := range s.torrent.Files() {
		end += int(f.Length)
		for from := max(0, end-2); from < min(len(s.content), end+2); from++ {
			if !yield(from, min(len(s.content), from+3)) {
				return
			}
		}
	}
}

func (s *subject) readsWhatWasWritten(t *testing.T) {
	s.write(t, 0, len(s.content))
	s.check(t, 0, len(s.content))
	s.ranges(func(from, to int) bool {
		s.check(t, from, to)
		return true
	})
}

func (s *subject) takesAnyOrder(t *testing.T) {
	const block = 16 << 10
	for _, i := range rand.New(rand.NewPCG(3, 4)).Perm((len(s.content) + block - 1) / block) {
		from, to := i*block, min((i+1)*block, len(s.content))
		s.write(t, from, to)
		s.check(t, from, to)
	}
	if err := s.Sync(); err != nil {
		t.Fatalf("Sync: %v", err)
	}
	s.check(t, 0, len(s.content))
}

// isMissing reports whether an error of ReadAt says that bytes are not there.
func isMissing(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, fs.ErrNotExist)
}

// knowsWhatIsMissing expects that a read of bytes that were never written returns bytes, or an error that says so.
func (s *subject) knowsWhatIsMissing(t *testing.T) {
	missing := func(from, to int) bool {
		p := make([]byte, to-from)
		n, err := s.ReadAt(p, int64(from))
		if err == nil && n < len(p) {
			t.Fatalf("ReadAt of %d bytes at %d: %d and no error", len(p), from, n)
		}
		if err != nil && !isMissing(err) {
			t.Fatalf("ReadAt of what was never written: %v, which would end the download", err)
		}
		return true
	}
	s.ranges(missing)
	third := len(s.content) / 3
	s.write(t, third, 2*third)
	s.ranges(missing)
	s.check(t, third, 2*third)
}

// knowsItsEnd reads up to the end, and beyond it: downloads do not do that, but others may who are given an io.ReaderAt.
func (s *subject) knowsItsEnd(t *testing.T) {
	s.write(t, 0, len(s.content))
	s.check(t, len(s.content)-40, len(s.content))
	end := int64(len(s.content))
	for _, from := range []int64{end - 40, end} {
		p := make([]byte, 100)
		n, err := s.ReadAt(p, from)
		if err == nil && n < len(p) || err != nil && !isMissing(err) {
			t.Errorf("ReadAt of 100 bytes of which %d are there: %d, %v", end-from, n, err)
		}
		if there := min(n, int(end-from)); !bytes.Equal(p[:there], s.content[from:from+int64(there)]) {
			t.Error("ReadAt across the end: other bytes than were written")
		}
	}
}

func (s *subject) takesNothing(t *testing.T) {
	if n, err := s.WriteAt(nil, 5); n != 0 || err != nil {
		t.Errorf("WriteAt of nothing: %d, %v", n, err)
	}
	s.write(t, 0, pieceLength)
	if n, err := s.ReadAt(nil, 5); n != 0 || err != nil {
		t.Errorf("ReadAt of nothing: %d, %v", n, err)
	}
	if err := errors.Join(s.Sync(), s.Sync()); err != nil {
		t.Errorf("Sync twice: %v", err)
	}
}

// overwrites is what happens after a piece failed its hash.
func (s *subject) overwrites(t *testing.T) {
	wrong := bytes.Repeat([]byte("wrong "), len(s.content))[:len(s.content)]
	if n, err := s.WriteAt(wrong, 0); n != len(wrong) || err != nil {
		t.Fatalf("WriteAt: %d, %v", n, err)
	}
	s.write(t, 0, len(s.content))
	s.check(t, 0, len(s.content))
}

func (s *subject) keepsNoBuffer(t *testing.T) {
	p := bytes.Clone(s.content[:pieceLength])
	if _, err := s.WriteAt(p, 0); err != nil {
		t.Fatalf("WriteAt: %v", err)
	}
	if !bytes.Equal(p, s.content[:pieceLength]) {
		t.Error("WriteAt changed the buffer that it was to write")
	}
	clear(p)
	s.check(t, 0, pieceLength)
}

func (s *subject) servesManyAtOnce(t *testing.T) {
	const block = 4 << 10
	blocks := (len(s.content) + block - 1) / block
	var all sync.WaitGroup
	for first := range 8 {
		all.Go(func() {
			got := make([]byte, block)
			for i := first; i < blocks; i += 8 {
				want := s.content[i*block : min((i+1)*block, len(s.content))]
				off := int64(i * block)
				if n, err := s.WriteAt(want, off); n != len(want) || err != nil {
					t.Errorf("WriteAt of %d bytes at %d: %d, %v", len(want), off, n, err)
					return
				}
				n, err := s.ReadAt(got[:len(want)], off)
				if n != len(want) || err != nil && err != io.EOF || !bytes.Equal(got[:n], want) {
					t.Errorf("ReadAt of %d bytes at %d, just written: %d, %v", len(want), off, n, err)
					return
				}
			}
		})
	}
	all.Wait()
	s.check(t, 0, len(s.content))
}

func (s *subject) keepsTorrentsApart(t *testing.T) {
	tor, content := makeTorrent(t, "another")
	other := &subject{Storage: s.opened(t, tor), torrent: tor, content: content}
	s.write(t, 0, len(s.content))
	other.write(t, 0, len(content))
	s.check(t, 0, len(s.content))
	if err := other.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	s.check(t, 0, len(s.content))
}

// opensAgain expects what was closed to be opened again, and then to hold what it held, or nothing: a storage that keeps
// what it holds, and one that does not, must not make something else of it.
func (s *subject) opensAgain(t *testing.T) {
	s.write(t, 0, len(s.content)/2)
	s.reopen(t)
	for piece := 0; piece < len(s.content); piece += pieceLength {
		want := s.content[piece:min(piece+pieceLength, len(s.content))]
		got := make([]byte, len(want))
		n, err := s.ReadAt(got, int64(piece))
		if err != nil && !isMissing(err) || err == nil && n < len(got) {
			t.Fatalf("ReadAt of %d bytes at %d, opened again: %d, %v", len(got), piece, n, err)
		}
		for i, b := range got[:n] {
			if b != want[i] && b != 0 {
				t.Fatalf("ReadAt of %d bytes at %d, opened again: bytes that were never written", len(got), piece)
			}
		}
	}
	s.write(t, 0, len(s.content))
	s.check(t, 0, len(s.content))
}

// makeTorrent makes a torrent of several files, some of them empty, and its content.
func makeTorrent(t *testing.T, name string) (*torrent.Torrent, []byte) {
	t.Helper()
	type file struct {
		Length int      `bencode:"length"`
		Path   []string `bencode:"path"`
		Attr   string   `bencode:"attr,omitempty"`
	}
	type info struct {
		Files       []file `bencode:"files"`
		Name        string `bencode:"name"`
		PieceLength int    `bencode:"piece length"`
		Pieces      []byte `bencode:"pieces"`
	}
	i := info{Name: name, PieceLength: pieceLength, Files: []file{
		{1, []string{"one byte"}, ""},
		{100_000, []string{"sub", "several pieces"}, ""},
		{0, []string{"empty"}, ""},
		{pieceLength, []string{"sub", "a piece long"}, ""},
		{10, []string{"sub", "deeper", "small"}, ""},
		{11, []string{"sub", "deeper", "and its neighbour"}, ""},
		{5000, []string{".pad", "5000"}, "p"}, // BEP 47: zeros, which count in offsets
		{300_000, []string{"large"}, ""},
		{0, []string{"empty at the end"}, ""},
	}}
	total := 0
	for _, f := range i.Files {
		total += f.Length
	}
	content := make([]byte, total)
	seed := [32]byte{}
	copy(seed[:], name)
	if _, err := rand.NewChaCha8(seed).Read(content); err != nil {
		t.Fatal(err)
	}
	off := 0
	for _, f := range i.Files {
		if f.Attr == "p" {
			clear(content[off : off+f.Length])
		}
		off += f.Length
	}
	for piece := range slices.Chunk(content, pieceLength) {
		sum := sha1.Sum(piece)
		i.Pieces = append(i.Pieces, sum[:]...)
	}
	b, err := bencode.EncodeBytes(map[string]info{"info": i})
	if err != nil {
		t.Fatal(err)
	}
	tor, err := torrent.Parse(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return tor, content
}
