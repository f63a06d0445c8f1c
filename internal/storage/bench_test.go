package storage_test

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/storage"
)

func BenchmarkChanged(b *testing.B) {
	tor, content := testContent(1<<20, 4<<20)
	tor.File(0).Path = "some directory/with a longer name/and then a file.iso"
	c, err := storage.OpenFiles(tor, b.TempDir(), nil)
	require.NoError(b, err)
	defer c.Close()
	require.NoError(b, c.SetWanted(all(tor)))
	require.NoError(b, c.WriteBlocks([][]byte{content}, 0))
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Changed(2); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWriteBlocks(b *testing.B) {
	tor, content := testContent(1<<20, 64<<20)
	c, err := storage.OpenFiles(tor, b.TempDir(), nil)
	require.NoError(b, err)
	defer c.Close()
	require.NoError(b, c.SetWanted(all(tor)))
	blocks := slices.Collect(slices.Chunk(content[:1<<20], layout.BlockSize))
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if err := c.WriteBlocks(blocks, int64(i%64)<<20); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// BenchmarkVerify compares hashing files that are in the page cache with hashing memory.
func BenchmarkVerify(b *testing.B) {
	const size = 512 << 20
	for _, pieceLength := range []int64{16 << 10, 256 << 10, 4 << 20} {
		tor, content := testContent(pieceLength, size)
		dir := b.TempDir()
		c, err := storage.OpenFiles(tor, dir, nil)
		require.NoError(b, err)
		require.NoError(b, c.SetWanted(all(tor)))
		require.NoError(b, c.WriteBlocks([][]byte{content}, 0))
		require.NoError(b, c.Close())
		b.Run(fmt.Sprintf("files/%dKiB", pieceLength>>10), func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				have, err := storage.VerifyDir(b.Context(), tor, dir)
				if err != nil || have.Count() < have.Len() {
					b.Fatal(have.Count(), err)
				}
			}
		})
		b.Run(fmt.Sprintf("memory/%dKiB", pieceLength>>10), func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				var cores sync.WaitGroup
				n := runtime.GOMAXPROCS(0)
				for core := range n {
					cores.Go(func() {
						h := tor.NewCheck()
						for i := core; i < tor.NumPieces(); i += n {
							h.Reset()
							h.Write(pieceOf(tor, content, i))
							if !h.Matches(i) {
								b.Error("wrong")
							}
						}
					})
				}
				cores.Wait()
			}
		})
		os.Remove(dir + "/d/0")
	}
}
