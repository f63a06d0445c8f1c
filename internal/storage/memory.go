package storage

import (
	"context"
	"fmt"
	"io"
	"math"
	"sync"

	"github.com/shoal-go/torrent/internal/bits"
)

// memory keeps the content in memory: wanted files whole, and of other files only the bytes in a piece that a wanted file shares.
type memory struct {
	content Content
	max     int64 // bytes

	mu     sync.RWMutex // held for writing to change files, and for reading by reads and writes of bytes
	closed bool
	files  []memoryFile // by index in the layout
}

// memoryFile holds a whole file, or the parts of it in its first and its last piece, which are the only pieces that it can share
// with another file.
type memoryFile struct {
	whole      []byte
	head, tail []byte
}

// NewMemory returns a Store in memory. SetWanted allocates the memory for the wanted files, or returns ErrTooLarge if that is
// more than limit bytes.
func NewMemory(c Content, limit int64) Store {
	return &memory{content: c, max: limit, files: make([]memoryFile, c.NumFiles())}
}

// edges returns how many bytes of file i lie in its first piece, and how many in its last if that is another piece.
func (m *memory) edges(i int) (head, tail int64) {
	first, end := m.content.PiecesOf(i)
	if end-first <= 1 {
		return m.content.File(i).Length, 0
	}
	return m.content.Overlap(i, first), m.content.Overlap(i, end-1)
}

func (m *memory) Place() Place { return "memory" }

func (m *memory) SetWanted(wanted []bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	// Everything is counted before anything is allocated.
	plan, need := m.plan(wanted)
	if limit := min(m.max, math.MaxInt); need > limit {
		return fmt.Errorf("%s: keep %d bytes in memory, %d allowed: %w", m.content.Name, need, limit, ErrTooLarge)
	}
	m.allocate(plan)
	return nil
}

// memoryPlan is which parts of a file memory is to hold.
type memoryPlan struct{ whole, head, tail bool }

// plan returns which parts of each file to hold, including those held already, and how many bytes they are in all.
// The caller holds m.mu.
func (m *memory) plan(wanted []bool) (plan []memoryPlan, need int64) {
	c := &m.content
	pieces := bits.New(c.NumPieces())
	for i := range c.NumFiles() {
		if f := c.File(i); wanted[i] && !f.Pad {
			for first, end := c.PiecesOf(i); first < end; first++ {
				pieces.Add(first)
			}
		}
	}
	plan = make([]memoryPlan, c.NumFiles())
	for i := range c.NumFiles() {
		f, have, p := c.File(i), &m.files[i], &plan[i]
		if f.Pad || f.Length == 0 {
			continue
		}
		first, end := c.PiecesOf(i)
		head, tail := m.edges(i)
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
	return plan, need
}

// allocate allocates the parts in plan that do not exist yet. The caller holds m.mu for writing.
func (m *memory) allocate(plan []memoryPlan) {
	for i, p := range plan {
		length, have := m.content.File(i).Length, &m.files[i]
		head, tail := m.edges(i)
		if p.whole && have.whole == nil {
			whole := make([]byte, length)
			copy(whole, have.head)
			copy(whole[length-int64(len(have.tail)):], have.tail)
			*have = memoryFile{whole: whole}
		}
		if p.head && have.head == nil {
			have.head = make([]byte, head)
		}
		if p.tail && have.tail == nil {
			have.tail = make([]byte, tail)
		}
	}
}

// room returns the memory that holds file i from off on, at most n bytes of it. It is empty if the byte at off is not held.
// The caller holds m.mu.
func (m *memory) room(i int, off, n int64) []byte {
	f, length := &m.files[i], m.content.File(i).Length
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
	if err := checkRead(&m.content, m.closed, off); err != nil {
		return 0, err
	}
	for i := m.content.FileAt(off); n < len(p) && i < m.content.NumFiles(); i++ {
		f := m.content.File(i)
		for n < len(p) && off < f.End() {
			at := off - f.Offset
			k := min(int64(len(p)-n), f.Length-at)
			if f.Pad {
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
	if err := checkWrite(&m.content, m.closed, off, int64(len(p))); err != nil {
		return 0, err
	}
	for i := m.content.FileAt(off); n < len(p); i++ {
		f := m.content.File(i)
		for n < len(p) && off < f.End() {
			at := off - f.Offset
			k := min(int64(len(p)-n), f.Length-at)
			if !f.Pad {
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

func (m *memory) WriteBlocks(blocks [][]byte, off int64) error {
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

func (m *memory) Move(context.Context, string, func() (bits.Set, map[int]bits.Set), func(int64, int64)) error {
	return errNoDirectory
}

func (m *memory) PieceVerified(int) error { return nil }

func (m *memory) Release() error { return nil }

func (m *memory) Rest() error { return nil }

func (m *memory) Wake() error { return nil }

func (m *memory) Settle(context.Context, bits.Set) error { return nil }

func (m *memory) Stop() {}

func (m *memory) LoadResume() (bits.Set, map[int]bits.Set) {
	return m.Present(context.Background()), nil
}

func (m *memory) Present(context.Context) bits.Set { return bits.New(m.content.NumPieces()) }

func (m *memory) SaveResume(bits.Set, map[int]bits.Set) error { return nil }

func (m *memory) Finish() error { return nil }

func (m *memory) Keep(bits.Set, map[int]bits.Set) error { return nil }

func (m *memory) Changed(int) error { return nil }

func (m *memory) ChangedAt(int64, int64) error { return nil }

func (m *memory) ChangedFile(int) error { return nil }

func (m *memory) AnyChanged(context.Context, bits.Set) (int, error) { return -1, nil }

func (m *memory) Refresh(int, bits.Set) (bits.Set, error) {
	return bits.New(m.content.NumPieces()), nil
}

func (m *memory) Copies(int) int { return 0 }

func (m *memory) Bytes(i int) ([]byte, func() error, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	release := func() error { return nil }
	switch f := m.content.File(i); {
	case m.closed:
		return nil, nil, ErrClosed
	case f.Length == 0:
		return []byte{}, release, nil
	case m.files[i].whole == nil:
		return nil, nil, fmt.Errorf("%s: %w", f.Path, io.ErrUnexpectedEOF)
	}
	// The capacity is the length, so that an append by the caller copies the slice.
	b := m.files[i].whole
	return b[:len(b):len(b)], release, nil
}
