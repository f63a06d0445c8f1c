package storage_test

import (
	"crypto/sha1"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/storage"
)

// countingCheck counts the bytes that are hashed.
type countingCheck struct {
	storage.Check
	hashed *int
}

func (c countingCheck) Write(b []byte) (int, error) {
	*c.hashed += len(b)
	return c.Check.Write(b)
}

// Pieces of padding alone are hashed once for all: in 20 bytes of a .torrent file an author writes 512 MiB of it, which is in no
// length that a user sees.
func TestPaddingIsHashedOnce(t *testing.T) {
	const piece, n = 64 << 10, 50
	l := layout.New(piece,
		layout.File{Path: "d/pad", Length: n * piece, Pad: true},
		layout.File{Path: "d/a", Length: 1},
		layout.File{Path: "d/more", Length: 2*piece - 2, Pad: true},
		layout.File{Path: "d/b", Length: 1})
	content := make([]byte, l.Size())
	tor := contentOf(l, content)
	sums := make([][sha1.Size]byte, l.NumPieces())
	for i := range sums {
		sums[i] = sha1.Sum(content[:piece])
	}
	sums[3] = sha1.Sum([]byte("no zeros"))
	hashed := 0
	tor.NewCheck = func() storage.Check { return countingCheck{&sumCheck{sha1.New(), sums}, &hashed} }
	want := bits.Full(l.NumPieces())
	for _, i := range []int{3, n, n + 1} {
		want.Remove(i)
	}

	dir := t.TempDir()
	s := openDirectory(t, tor, dir)
	require.NoError(t, s.SetWanted(all(tor)))
	have, _ := s.LoadResume()
	require.Equal(t, want, have)
	present := s.Present(t.Context())
	require.Zero(t, present.Count())
	have, err := storage.VerifyDir(t.Context(), tor, dir)
	require.NoError(t, err)
	require.Equal(t, want, have)
	require.LessOrEqual(t, hashed, 4*piece, "bytes, in one start and one check")
}
