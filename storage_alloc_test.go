//go:build !race

package torrent

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// Without the race detector, under which a sync.Pool forgets at random.
func TestWriteAllocatesNothing(t *testing.T) {
	tor, content := testContent(1<<20, 3<<19, 3<<19)
	c := openDirectory(t, tor, t.TempDir())
	require.NoError(t, c.setWanted(all(tor)))
	blocks := slices.Collect(slices.Chunk(pieceOf(tor, content, 1), blockSize))
	write := func() { require.NoError(t, c.writeBlocks(blocks, 1<<20)) }
	write()
	require.Zero(t, testing.AllocsPerRun(20, write))
	require.Zero(t, testing.AllocsPerRun(20, func() { c.WriteAt(content[:blockSize], 0) }))

	got := make([]byte, 1<<20)
	read := func() { require.NoError(t, readFull(c, got, 1<<20)) }
	require.Zero(t, testing.AllocsPerRun(20, read))
	require.Equal(t, pieceOf(tor, content, 1), got)
}
