package storagetest

import (
	"testing"

	"github.com/shoal-go/torrent"
)

// Reopen tests a storage that keeps what it holds when it is closed. Call Run for the rules of every storage. open returns
// the storage of a torrent, empty the first time, and later with what it held when it was closed. If the storage has the methods
// PieceVerified and Verified, the pieces that Verified returns must be those that PieceVerified was called for, and be there.
func Reopen(t *testing.T, open func(*torrent.Torrent) (torrent.Storage, error)) {
	t.Helper()
	s := &subject{open: open}
	s.torrent, s.content = makeTorrent(t, "reopened")
	s.Storage = s.opened(t, s.torrent)
	s.verifies(t, 0)
	half := s.torrent.NumPieces() / 2 * pieceLength
	s.write(t, 0, half)
	s.tell(t, 0, half/pieceLength)
	s.write(t, half, half+100) // of a piece that is never told to be whole

	s.reopen(t)
	s.check(t, 0, half+100)
	s.verifies(t, half/pieceLength)
	s.write(t, half+100, len(s.content))
	s.tell(t, half/pieceLength, s.torrent.NumPieces())

	s.reopen(t)
	s.check(t, 0, len(s.content))
	s.verifies(t, s.torrent.NumPieces())
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// reopen closes the storage as a download does, and opens it again.
func (s *subject) reopen(t *testing.T) {
	t.Helper()
	if err := s.Sync(); err != nil {
		t.Fatalf("Sync: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	s.Storage = s.opened(t, s.torrent)
}

// tell tells the storage of whole pieces, if it wants to know.
func (s *subject) tell(t *testing.T, from, to int) {
	t.Helper()
	st, ok := s.Storage.(interface{ PieceVerified(i int) error })
	for i := from; ok && i < to; i++ {
		if err := st.PieceVerified(i); err != nil {
			t.Fatalf("PieceVerified(%d): %v", i, err)
		}
	}
}

// verifies expects the storage, if it knows, to say that the first n pieces are whole.
func (s *subject) verifies(t *testing.T, n int) {
	t.Helper()
	st, ok := s.Storage.(interface {
		Verified() (torrent.Bitfield, error)
	})
	if !ok {
		return
	}
	have, err := st.Verified()
	if err != nil || have.Len() != s.torrent.NumPieces() {
		t.Fatalf("Verified: %d pieces of %d, %v", have.Len(), s.torrent.NumPieces(), err)
	}
	_, told := s.Storage.(interface{ PieceVerified(i int) error })
	for i := range have.Len() {
		if have.Has(i) && i >= n {
			t.Errorf("Verified: piece %d, which is not whole", i)
		} else if told && !have.Has(i) && i < n {
			t.Errorf("Verified: without piece %d, of which PieceVerified was told", i)
		}
	}
}
