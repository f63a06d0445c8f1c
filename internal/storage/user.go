package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"sync/atomic"

	"github.com/shoal-go/torrent/internal/bits"
)

// userStore makes a Store of a User. A User stores padding. All of its pieces are hashed at every start, except those that it
// reports as whole, and changes by other programs are not noticed.
type userStore struct {
	content Content
	whole   bits.Set
	tell    func(piece int) error

	stopped atomic.Bool

	mu     sync.RWMutex // held for writing by Close and Rest, and for reading by other methods that use the fields below
	st     User
	closed bool
	rests  bool // Rest was called, and Close was not
}

// Wrap returns a Store over st. whole is the set of pieces that st already holds whole. tell is called for each other piece once
// it is verified; it may be nil.
func Wrap(c Content, st User, whole bits.Set, tell func(piece int) error) Store {
	return &userStore{content: c, st: st, whole: whole, tell: tell}
}

func (s *userStore) Place() Place { return UserPlace }

// PieceVerified calls the function tell given to Wrap, if there is one, to report that a piece is whole.
func (s *userStore) PieceVerified(piece int) error {
	if s.tell == nil {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return ErrClosed
	}
	return s.tell(piece)
}

func (s *userStore) ReadAt(p []byte, off int64) (int, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return 0, ErrClosed
	}
	return s.st.ReadAt(p, off)
}

func (s *userStore) WriteAt(p []byte, off int64) (int, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed || s.stopped.Load() {
		return 0, ErrClosed
	}
	return s.st.WriteAt(p, off)
}

func (s *userStore) Sync() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return ErrClosed
	}
	return s.st.Sync()
}

// Close waits for calls in progress. No method of the User is called after Close returns.
func (s *userStore) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rests {
		s.rests = false
		return nil
	}
	if s.closed {
		return ErrClosed
	}
	s.closed = true
	return errors.Join(s.st.Sync(), s.st.Close())
}

func (s *userStore) Rest() error {
	err := s.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rests = true
	return err
}

func (s *userStore) Wake() error { return nil }

func (s *userStore) WriteBlocks(blocks [][]byte, off int64) error {
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

func (s *userStore) SetWanted([]bool) error { return nil }

func (s *userStore) Settle(context.Context, bits.Set) error { return nil }

func (s *userStore) Stop() { s.stopped.Store(true) }

func (s *userStore) LoadResume() (bits.Set, map[int]bits.Set) {
	have := bits.New(s.content.NumPieces())
	for i := range s.whole.All() {
		have.Add(i)
	}
	return have, nil
}

func (s *userStore) Present(context.Context) bits.Set { return bits.Full(s.content.NumPieces()) }

func (s *userStore) SaveResume(bits.Set, map[int]bits.Set) error { return s.Sync() }

func (s *userStore) Finish() error { return s.Sync() }

func (s *userStore) Keep(bits.Set, map[int]bits.Set) error { return s.Sync() }

func (s *userStore) Move(context.Context, string, func() (bits.Set, map[int]bits.Set), func(int64, int64)) error {
	return errNoDirectory
}

func (s *userStore) Release() error { return nil }

func (s *userStore) Changed(int) error { return nil }

func (s *userStore) ChangedAt(int64, int64) error { return nil }

func (s *userStore) ChangedFile(int) error { return nil }

func (s *userStore) AnyChanged(context.Context, bits.Set) (int, error) { return -1, nil }

func (s *userStore) Refresh(piece int, _ bits.Set) (bits.Set, error) {
	doubt := bits.New(s.content.NumPieces())
	doubt.Add(piece)
	return doubt, nil
}

func (s *userStore) Copies(int) int { return 0 }

func (s *userStore) Bytes(i int) ([]byte, func() error, error) {
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
