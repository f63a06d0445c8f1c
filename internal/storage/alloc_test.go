//go:build !race

package storage_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/storage"
)

// A write of 128 KiB allocates a copy of the name of its file, to look whether that still leads there. This test does not run with the race
// detector, under which a sync.Pool drops values at random.
func TestWriteAllocatesLittle(t *testing.T) {
	tor, content := testContent(1<<20, 3<<19, 3<<19)
	c := openDirectory(t, tor, t.TempDir())
	require.NoError(t, c.SetWanted(all(tor)))
	blocks := slices.Collect(slices.Chunk(pieceOf(tor, content, 1), layout.BlockSize))
	write := func() { require.NoError(t, c.WriteBlocks(blocks, 1<<20)) }
	write()
	require.LessOrEqual(t, testing.AllocsPerRun(20, write), 8.0)
	require.LessOrEqual(t, testing.AllocsPerRun(20, func() { c.WriteAt(content[:layout.BlockSize], 0) }), 1.0)

	got := make([]byte, 1<<20)
	read := func() { require.NoError(t, readFull(c, got, 1<<20)) }
	require.Zero(t, testing.AllocsPerRun(20, read))
	require.Equal(t, pieceOf(tor, content, 1), got)
}

// Where inodes are invented, the first write to each file searches for another file of the content that is the same file.
func TestWriteToOneOfManyFilesAllocatesLittle(t *testing.T) {
	linuxOnly(t)
	var paths []string
	for i := range 1000 {
		paths = append(paths, fmt.Sprint(i))
	}
	tor, content := named(1, paths...)
	dir := t.TempDir()
	for _, p := range paths {
		require.NoError(t, os.WriteFile(dir+"/"+p, make([]byte, 100), 0o666))
	}
	disk, err := storage.OpenRoot(dir)
	require.NoError(t, err)
	s := openInvented(t, tor, disk, dir, func(name string) string { return name }, new(atomic.Uint64))
	require.NoError(t, s.SetWanted(all(tor)))
	written := int64(0)
	require.Less(t, testing.AllocsPerRun(4, func() {
		_, err := s.WriteAt(content[written:written+100], written)
		require.NoError(t, err)
		written += 100
	}), 500.)
}

// What claims cost grows with the number of directories, not with the steps to each of them, file by file.
func TestClaimsInDeepDirectoriesCostLittle(t *testing.T) {
	dir, claims := t.TempDir(), new(storage.Claims)
	open := func(k int) (s storage.Store, tor storage.Content, content []byte) {
		var paths []string
		for i := range 100 {
			paths = append(paths, "x/"+strings.Repeat("a/", 500)+fmt.Sprint(k, " ", i))
		}
		tor, content = named(byte(k), paths...)
		s, err := claims.OpenFiles(tor, dir, nil)
		require.NoError(t, err)
		t.Cleanup(func() { s.Close() })
		return s, tor, content
	}
	other, tor, _ := open(1)
	require.NoError(t, other.SetWanted(all(tor)))
	s, tor, content := open(2)
	require.Less(t, testing.AllocsPerRun(1, func() { require.NoError(t, s.SetWanted(all(tor))) }), 50_000.0)
	writePiece(t, tor, s, content, 0)
	piece := 0
	require.Less(t, testing.AllocsPerRun(1, func() {
		piece += 2 // of another file
		writePiece(t, tor, s, content, piece)
	}), 50_000.0)
}

// To look for changes of a file costs little however long its path is: not a step for each of its elements.
func TestLooksAtLongPathsCostLittle(t *testing.T) {
	linuxOnly(t)
	tor, content := named(1, "d/"+strings.Repeat(strings.Repeat("e", 240)+"/", 126)+"x")
	s := openDirectory(t, tor, t.TempDir())
	require.NoError(t, s.SetWanted(all(tor)))
	blocks := [][]byte{content[:50]}
	write := func() { require.NoError(t, s.WriteBlocks(blocks, 0)) }
	write()
	require.Less(t, testing.AllocsPerRun(20, write), 30.0)
	require.Less(t, testing.AllocsPerRun(20, func() { require.NoError(t, s.Changed(0)) }), 30.0)
}
