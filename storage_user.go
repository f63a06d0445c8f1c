package torrent

import (
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	"github.com/shoal-go/torrent/internal/bits"
)

// userStorage is a Storage from outside, of which nothing more is known than its four methods: it
// stores padding, is hashed at every start, and cannot tell whether someone else changed it.
type userStorage struct {
	content content

	mu     sync.RWMutex // for writing by Close, for reading by the rest
	st     Storage
	closed bool
}

func wrapStorage(c content, st Storage) contents { return &userStorage{content: c, st: st} }

func (s *userStorage) ReadAt(p []byte, off int64) (int, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return 0, ErrClosed
	}
	return s.st.ReadAt(p, off)
}

func (s *userStorage) WriteAt(p []byte, off int64) (int, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return 0, ErrClosed
	}
	return s.st.WriteAt(p, off)
}

func (s *userStorage) Sync() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return ErrClosed
	}
	return s.st.Sync()
}

// Close waits for the calls that are under way: nothing is called after it.
func (s *userStorage) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.closed = true
	return s.st.Close()
}

func (s *userStorage) writeBlocks(blocks [][]byte, off int64) error {
	for _, b := range blocks {
		n, err := s.WriteAt(b, off)
		if err == nil && n < len(b) {
			err = io.ErrShortWrite
		}
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

func (s *userStorage) setWanted([]bool) error { return nil }

func (s *userStorage) loadResume() (bits.Set, map[int]bits.Set) {
	return bits.New(s.content.NumPieces()), nil
}

func (s *userStorage) present() bits.Set { return bits.Full(s.content.NumPieces()) }

func (s *userStorage) saveResume(bits.Set, map[int]bits.Set) error { return s.Sync() }

func (s *userStorage) finished() error { return nil }

func (s *userStorage) changed(int) error { return nil }

func (s *userStorage) changedFile(int) error { return nil }

func (s *userStorage) anyChanged(bits.Set) (int, error) { return -1, nil }

func (s *userStorage) renew(piece int) (bits.Set, error) {
	doubt := bits.New(s.content.NumPieces())
	doubt.Add(piece)
	return doubt, nil
}

func (s *userStorage) file(i int) ([]byte, func() error, error) {
	f := s.content.File(i)
	if f.Length > math.MaxInt {
		return nil, nil, fmt.Errorf("%s: %d bytes in one slice: %w", f.Path, f.Length, ErrTooLarge)
	}
	b := make([]byte, f.Length)
	if err := readFull(s, b, f.Offset); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", f.Path, err)
	}
	return b, func() error { return nil }, nil
}

// readFull reads all of p; what ends before that is io.ErrUnexpectedEOF.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	n, err := r.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	}
	return err
}
