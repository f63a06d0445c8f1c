package simpeer_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

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
