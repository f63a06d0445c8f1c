package storage_test

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

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

// BenchmarkServe reads block after block of content in small files, as a seed does.
func BenchmarkServe(b *testing.B) {
	for _, c := range []struct {
		files             int
		size, pieceLength int64
	}{{100_000, 200, 1 << 20}, {8192, 4096, 16 << 20}} {
		tor, content := testContent(c.pieceLength, slices.Repeat([]int64{c.size}, c.files)...)
		dir := b.TempDir()
		require.NoError(b, os.Mkdir(dir+"/d", 0o777))
		for _, f := range tor.Files() {
			require.NoError(b, os.WriteFile(dir+"/"+f.Path, content[f.Offset:f.End()], 0o666))
		}
		s, err := storage.OpenFiles(tor, dir, nil)
		require.NoError(b, err)
		defer s.Close()
		require.NoError(b, s.SetWanted(all(tor)))
		buf := make([]byte, layout.BlockSize)
		blocks := tor.Size() / layout.BlockSize
		for _, look := range []string{"block", "piece"} {
			b.Run(fmt.Sprintf("files=%d/size=%d/look=%s", c.files, c.size, look), func(b *testing.B) {
				b.SetBytes(layout.BlockSize)
				i := int64(0)
				for b.Loop() {
					off := i % blocks * layout.BlockSize
					if look == "block" || off%c.pieceLength == 0 {
						require.NoError(b, s.Changed(tor.PieceAt(off)))
					}
					if _, err := s.ReadAt(buf, off); err != nil {
						b.Fatal(err)
					}
					i++
				}
			})
		}
	}
}

// BenchmarkClaimsBesideOthers begins n downloads of 100 files each in one directory, as a program does that is started again.
func BenchmarkClaimsBesideOthers(b *testing.B) {
	for _, n := range []int{200, 1000} {
		b.Run(fmt.Sprintf("torrents=%d", n), func(b *testing.B) {
			torrents := make([]storage.Content, n)
			for k := range torrents {
				var paths []string
				for i := range 100 {
					paths = append(paths, fmt.Sprintf("torrent %d/d%d/file %d", k, i%5, i))
				}
				torrents[k], _ = named(byte(k), paths...)
				torrents[k].InfoHash[1] = byte(k >> 8)
			}
			for b.Loop() {
				claims, dir, began := new(storage.Claims), b.TempDir(), time.Duration(0)
				var stores []storage.Store
				for _, tor := range torrents {
					s, err := claims.OpenFiles(tor, dir, nil)
					require.NoError(b, err)
					start := time.Now()
					require.NoError(b, s.SetWanted(all(tor)))
					began += time.Since(start)
					stores = append(stores, s)
				}
				b.ReportMetric(float64(began.Nanoseconds())/float64(n), "ns/torrent")
				for _, s := range stores {
					require.NoError(b, s.Close())
				}
			}
		})
	}
}
