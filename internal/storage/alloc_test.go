//go:build !race

package storage_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/layout"
)

// Without the race detector, under which a sync.Pool forgets at random.
func TestWriteAllocatesNothing(t *testing.T) {
	tor, content := testContent(1<<20, 3<<19, 3<<19)
	c := openDirectory(t, tor, t.TempDir())
	require.NoError(t, c.SetWanted(all(tor)))
	blocks := slices.Collect(slices.Chunk(pieceOf(tor, content, 1), layout.BlockSize))
	write := func() { require.NoError(t, c.WriteBlocks(blocks, 1<<20)) }
	write()
	require.Zero(t, testing.AllocsPerRun(20, write))
	require.Zero(t, testing.AllocsPerRun(20, func() { c.WriteAt(content[:layout.BlockSize], 0) }))

	got := make([]byte, 1<<20)
	read := func() { require.NoError(t, readFull(c, got, 1<<20)) }
	require.Zero(t, testing.AllocsPerRun(20, read))
	require.Equal(t, pieceOf(tor, content, 1), got)
}
