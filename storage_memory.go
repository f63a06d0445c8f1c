package torrent

import (
	"fmt"
	"io"
	"math"
	"sync"

	"github.com/shoal-go/torrent/internal/bits"
)

// memory keeps the content in memory: wanted files whole, and of the others only the bytes that
// share a piece with one that is wanted.
type memory struct {
	t   *Torrent
	max int64

	mu     sync.RWMutex // for writing where files changes; reads and writes of bytes hold it for reading
	closed bool
	files  []memoryFile // by index in t.files
}

// memoryFile holds a file whole, or the parts of it in its first and its last piece, which are all
// that a neighbour's pieces can hold of it.
type memoryFile struct {
	whole      []byte
	head, tail []byte
}

// openMemory returns storage without any room. setWanted makes it, or returns ErrTooLarge if what is
// wanted takes more than limit bytes.
func openMemory(t *Torrent, limit int64) (contents, error) {
	return &memory{t: t, max: limit, files: make([]memoryFile, len(t.files))}, nil
}

// edges are the lengths of what f has in its first piece and in its last, if that is another.
func (t *Torrent) edges(f *File) (head, tail int64) {
	first, end := t.piecesOf(f)
	if end-first <= 1 {
		return f.Length, 0
	}
	return int64(first+1)*t.pieceLength - f.offset, f.offset + f.Length - int64(end-1)*t.pieceLength
}

func (m *memory) setWanted(wanted []bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.t
	pieces := bits.New(t.NumPieces())
	for i := range t.files {
		if f := &t.files[i]; wanted[i] && !f.pad {
			for first, end := t.piecesOf(f); first < end; first++ {
				pieces.Add(first)
			}
		}
	}

	// What there will be: first counted, and only then allocated.
	plan := make([]struct{ whole, head, tail bool }, len(t.files))
	need := int64(0)
	for i := range t.files {
		f, have, p := &t.files[i], &m.files[i], &plan[i]
		if f.pad || f.Length == 0 {
			continue
		}
		first, end := t.piecesOf(f)
		head, tail := t.edges(f)
		p.whole = have.whole != nil || wanted[i]
		p.head = !p.whole && (have.head != nil || pieces.Has(first))
		p.tail = !p.whole && tail > 0 && (have.tail != nil || pieces.Has(end-1))
		if p.whole {
			need += f.Length
		}
		if p.head {
			need += head
		}
		if p.tail {
			need += tail
		}
	}
	if limit := min(m.max, math.MaxInt); need > limit {
		return fmt.Errorf("%s: %d bytes to keep in memory, %d allowed: %w", t.name, need, limit, ErrTooLarge)
	}

	for i, p := range plan {
		f, have := &t.files[i], &m.files[i]
		head, tail := t.edges(f)
		switch {
		case p.whole && have.whole == nil:
			whole := make([]byte, f.Length)
			copy(whole, have.head)
			copy(whole[f.Length-int64(len(have.tail)):], have.tail)
			*have = memoryFile{whole: whole}
		default:
			if p.head && have.head == nil {
				have.head = make([]byte, head)
			}
			if p.tail && have.tail == nil {
				have.tail = make([]byte, tail)
			}
		}
	}
	return nil
}

// room is where the bytes of file i from off on live, at most n of them; nil if nowhere.
func (m *memory) room(i int, off, n int64) []byte {
	f, length := &m.files[i], m.t.files[i].Length
	var b []byte
	tail := length - int64(len(f.tail))
	switch {
	case f.whole != nil:
		b = f.whole[off:]
	case off < int64(len(f.head)):
		b = f.head[off:]
	case off >= tail:
		b = f.tail[off-tail:]
	}
	return b[:min(int64(len(b)), n)]
}

func (m *memory) ReadAt(p []byte, off int64) (n int, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := checkRead(m.t, m.closed, off); err != nil {
		return 0, err
	}
	for i := m.t.fileAt(off); n < len(p) && i < len(m.t.files); i++ {
		f := &m.t.files[i]
		for n < len(p) && off < f.offset+f.Length {
			at := off - f.offset
			k := min(int64(len(p)-n), f.Length-at)
			if f.pad {
				clear(p[n : n+int(k)])
			} else if b := m.room(i, at, k); len(b) > 0 {
				k = int64(copy(p[n:], b))
			} else {
				return n, io.ErrUnexpectedEOF
			}
			n, off = n+int(k), off+k
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memory) WriteAt(p []byte, off int64) (n int, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := checkWrite(m.t, m.closed, off, int64(len(p))); err != nil {
		return 0, err
	}
	for i := m.t.fileAt(off); n < len(p); i++ {
		f := &m.t.files[i]
		for n < len(p) && off < f.offset+f.Length {
			at := off - f.offset
			k := min(int64(len(p)-n), f.Length-at)
			if !f.pad {
				b := m.room(i, at, k)
				if len(b) == 0 {
					return n, fmt.Errorf("write %s: not a wanted file", f.Path)
				}
				k = int64(copy(b, p[n:]))
			}
			n, off = n+int(k), off+k
		}
	}
	return n, nil
}

func (m *memory) writeBlocks(blocks [][]byte, off int64) error {
	for _, b := range blocks {
		if _, err := m.WriteAt(b, off); err != nil {
			return err
		}
		off += int64(len(b))
	}
	return nil
}

func (m *memory) Sync() error { return nil }

func (m *memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	clear(m.files)
	return nil
}

func (m *memory) loadResume() (bits.Set, map[int]bits.Set) { return m.present(), nil }

func (m *memory) present() bits.Set { return bits.New(m.t.NumPieces()) }

func (m *memory) saveResume(bits.Set, map[int]bits.Set) error { return nil }

func (m *memory) finished() error { return nil }

func (m *memory) changed(int) error { return nil }

func (m *memory) changedFile(int) error { return nil }

func (m *memory) anyChanged(bits.Set) (int, error) { return -1, nil }

func (m *memory) renew(int) (bits.Set, error) { return bits.New(m.t.NumPieces()), nil }

func (m *memory) file(i int) ([]byte, func() error, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	release := func() error { return nil }
	switch f := &m.t.files[i]; {
	case m.closed:
		return nil, nil, ErrClosed
	case f.Length == 0:
		return []byte{}, release, nil
	case m.files[i].whole == nil:
		return nil, nil, fmt.Errorf("%s: %w", f.Path, io.ErrUnexpectedEOF)
	}
	// Appending to the slice must not be able to reach beyond it; it is exactly as long as the file.
	b := m.files[i].whole
	return b[:len(b):len(b)], release, nil
}

// checkRead refuses a read that cannot give a single byte.
func checkRead(t *Torrent, closed bool, off int64) error {
	switch {
	case closed:
		return ErrClosed
	case off < 0:
		return fmt.Errorf("read at %d: negative offset", off)
	case off >= t.total:
		return io.EOF
	}
	return nil
}

// checkWrite refuses a write that is not wholly within the content.
func checkWrite(t *Torrent, closed bool, off, n int64) error {
	switch {
	case closed:
		return ErrClosed
	case off < 0 || n > t.total-off:
		return fmt.Errorf("write of %d bytes at %d: outside the %d bytes of content", n, off, t.total)
	}
	return nil
}
