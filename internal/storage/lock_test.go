package storage_test

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/storage"
)

func TestTwoWritersOfTheSameContentAreRefused(t *testing.T) {
	if runtime.GOOS == "plan9" || runtime.GOOS == "js" {
		t.Skip("no locks on this system")
	}
	tor, content := testContent(50, 200)
	dir := t.TempDir()
	first := openDirectory(t, tor, dir)
	require.NoError(t, first.SetWanted(all(tor)))
	_, err := storage.OpenFiles(tor, dir, nil)
	require.ErrorIs(t, err, storage.ErrInUse)
	require.ErrorContains(t, err, dir)

	for i := range 4 {
		writePiece(t, tor, first, content, i)
	}
	require.NoError(t, first.Finish())
	second := openDirectory(t, tor, dir)
	require.NoError(t, second.SetWanted(all(tor)), "complete content may be shared")
	require.Equal(t, bits.Full(tor.NumPieces()), verified(t, tor, second))
	writePiece(t, tor, first, content, 2)
	require.ErrorIs(t, second.WriteBlocks([][]byte{content[:50]}, 0), storage.ErrInUse)
	require.NoError(t, first.Close())
	require.NoError(t, second.WriteBlocks([][]byte{content[:50]}, 0))
}
