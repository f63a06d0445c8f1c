package simpeer_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/merkle"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
)

func TestContent(t *testing.T) {
	for name, c := range map[string]*simpeer.Content{
		"drawn":     simpeer.NewContent(7, 32<<10, 100_000),
		"repeating": simpeer.NewRepeating(7, 32<<10, 100_000),
	} {
		t.Run(name, func(t *testing.T) {
			require.EqualValues(t, 100_000, c.Size())
			require.Equal(t, 4, c.NumPieces())
			var all []byte
			for i := range c.NumPieces() {
				all = append(all, c.Piece(i)...)
			}
			require.Len(t, all, 100_000)
			require.True(t, c.Equal(0, all))
			require.True(t, c.Equal(40_000, all[40_000:]))
			all[70_000] ^= 1
			require.False(t, c.Equal(40_000, all[40_000:]))
			require.Equal(t, all[32<<10+100:][:50], c.Block(1, 100, 50))
			require.Nil(t, c.Block(3, 0, 32<<10), "the last piece is shorter")
			require.Nil(t, c.Block(4, 0, 1))
		})
	}
	one, same, other := simpeer.NewContent(1, 1024, 1024), simpeer.NewContent(1, 1024, 1024), simpeer.NewContent(2, 1024, 1024)
	require.Equal(t, one, same)
	require.NotEqual(t, one.InfoHash, other.InfoHash)
	require.False(t, bytes.Equal(one.Piece(0), other.Piece(0)))
	repeats := simpeer.NewRepeating(1, 1024, 1<<40)
	require.Equal(t, repeats.Piece(0), repeats.Piece(1<<29))
}

func TestContentOfVersion2(t *testing.T) {
	const pieceLength, long, short = 32 << 10, 100_000, 5
	l := layout.NewAligned(pieceLength, layout.File{Path: "a", Length: long}, layout.File{Length: 4*pieceLength - long, Pad: true},
		layout.File{Path: "empty"}, layout.File{Path: "b", Length: short})
	for _, hybrid := range []bool{false, true} {
		c := simpeer.NewVersion2(1, l, hybrid)
		require.Equal(t, hybrid, c.InfoHash != c.InfoHashV2)
		require.Equal(t, 5, c.NumPieces())
		require.Equal(t, make([]byte, 4*pieceLength-long), c.Run(long, 4*pieceLength-long))
		require.Len(t, c.Piece(3), long-3*pieceLength)
		layer := c.PieceLayer(0)
		require.Len(t, layer, 4*merkle.Size)
		require.Equal(t, c.Root(0), merkle.Root(layer, 1, 3))
		h := merkle.NewHasher()
		_, _ = h.Write(c.Piece(1))
		require.Equal(t, merkle.Hash(layer[merkle.Size:]), h.Sum(1))
		require.Equal(t, merkle.HashBlock(c.Piece(4)), c.Root(3))
		for _, file := range []int{1, 2} {
			require.Zero(t, c.Root(file))
			require.Nil(t, c.PieceLayer(file))
		}
		require.Nil(t, c.PieceLayer(3))
	}
}
