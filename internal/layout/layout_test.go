package layout_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/layout"
)

func TestPiecesAndBlocks(t *testing.T) {
	l := layout.New(3*layout.BlockSize-1, layout.File{Length: 3*layout.BlockSize + 10})
	require.Equal(t, 2, l.NumPieces())
	require.Equal(t, 3, l.NumBlocks(0))
	require.Equal(t, 1, l.NumBlocks(1))
	require.Equal(t, layout.BlockSize-1, l.BlockLen(0, 2))
	require.Equal(t, 11, l.BlockLen(1, 0))
}

func TestFilesAndPieces(t *testing.T) {
	l := layout.New(64,
		layout.File{Path: "a", Length: 60},
		layout.File{Path: "pad", Length: 4, Pad: true},
		layout.File{Path: "b", Length: 100},
		layout.File{Path: "empty"},
		layout.File{Path: "c", Length: 30},
	)
	require.EqualValues(t, 194, l.Size())
	require.EqualValues(t, 64, l.PieceLength())
	require.Equal(t, 4, l.NumPieces())
	require.EqualValues(t, 2, l.PieceSize(3))
	require.EqualValues(t, 192, l.PieceOffset(3))
	require.EqualValues(t, 194, l.PieceEnd(3))
	require.Equal(t, 5, l.NumFiles())
	var offsets []int64
	for _, f := range l.Files() {
		offsets = append(offsets, f.Offset)
	}
	require.Equal(t, []int64{0, 60, 64, 164, 164}, offsets)
	for i, want := range [][2]int{{0, 1}, {0, 1}, {1, 3}, {0, 0}, {2, 4}} {
		first, end := l.PiecesOf(i)
		require.Equal(t, want, [2]int{first, end}, "file %d", i)
	}
	for i, want := range [][]int{{0}, {2}, {2, 4}, {4}} {
		require.Equal(t, want, slices.Collect(l.FilesOf(i)), "piece %d", i)
	}
	for _, want := range [][3]int64{{0, 60, 1}, {0, 61, 2}, {59, 1, 1}, {59, 2, 2}, {60, 104, 2}, {163, 2, 3}, {0, 194, 5}, {0, 200, 5}, {200, 1, 0}} {
		require.EqualValues(t, want[2], l.Span(want[0], want[1]), want)
	}
	require.EqualValues(t, 36, l.Overlap(2, 2))
	require.EqualValues(t, 28, l.Overlap(4, 2))
	require.EqualValues(t, 2, l.Overlap(4, 3))
}

func TestLayoutOfNothing(t *testing.T) {
	require.Zero(t, layout.Layout{}.NumPieces())
	require.Zero(t, layout.New(64, layout.File{Path: "empty"}).NumPieces())
}

func TestFilesOfStopsEarly(t *testing.T) {
	l := layout.New(64, slices.Repeat([]layout.File{{Length: 1}}, 64)...)
	for i := range l.FilesOf(0) {
		if i == 2 {
			return
		}
	}
	t.Fatal("not reached")
}

// For any files and any piece length, every answer agrees with looking at each byte.
func TestEveryByteHasOnePlace(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 3))
		files := make([]layout.File, 1+rng.IntN(8))
		for i := range files {
			files[i] = layout.File{Length: max(0, rng.Int64N(300)-50), Pad: rng.IntN(4) == 0}
		}
		pieceLength := 1 + rng.Int64N(200)
		l := layout.New(pieceLength, files...)

		overlap := make(map[[2]int]int64) // of a file and a piece
		off := int64(0)
		for i, f := range files {
			require.Equal(t, off, l.File(i).Offset)
			for range f.Length {
				piece := int(off / pieceLength)
				require.Equal(t, i, l.FileAt(off))
				require.Equal(t, piece, l.PieceAt(off))
				overlap[[2]int{i, piece}]++
				off++
			}
			require.Equal(t, off, l.File(i).End())
		}
		require.Equal(t, off, l.Size())
		require.Equal(t, len(files), l.FileAt(off), "no file holds it")

		size := int64(0)
		for piece := range l.NumPieces() {
			require.Equal(t, size, l.PieceOffset(piece))
			size += l.PieceSize(piece)
			require.Equal(t, size, l.PieceEnd(piece))
			var want []int
			for i, f := range files {
				if overlap[[2]int{i, piece}] > 0 && !f.Pad {
					want = append(want, i)
				}
			}
			require.Equal(t, want, slices.Collect(l.FilesOf(piece)))
			blocks := int64(0)
			for block := range l.NumBlocks(piece) {
				n := l.BlockLen(piece, block)
				require.True(t, 0 < n && n <= layout.BlockSize)
				blocks += int64(n)
			}
			require.Equal(t, l.PieceSize(piece), blocks)
		}
		require.Equal(t, l.Size(), size)

		for i := range files {
			first, end := l.PiecesOf(i)
			sum := int64(0)
			for piece := first; piece < end; piece++ {
				require.Equal(t, overlap[[2]int{i, piece}], l.Overlap(i, piece))
				sum += l.Overlap(i, piece)
			}
			require.Equal(t, files[i].Length, sum)
		}
	}
}

// A piece of version 2 ends with its file; what fills it up belongs to none.
func TestAlignedFiles(t *testing.T) {
	l := layout.NewAligned(64,
		layout.File{Path: "a", Length: 60},
		layout.File{Path: "pad", Length: 4, Pad: true},
		layout.File{Path: "empty"},
		layout.File{Path: "b", Length: 100},
		layout.File{Path: "pad", Length: 28, Pad: true},
		layout.File{Path: "c", Length: 64},
		layout.File{Path: "d", Length: 30},
		layout.File{Path: "pad", Length: 34, Pad: true},
	)
	require.True(t, l.Aligned())
	require.EqualValues(t, 320, l.Size())
	require.Equal(t, 5, l.NumPieces())
	var sizes, fills []int64
	for i := range l.NumPieces() {
		sizes, fills = append(sizes, l.PieceSize(i)), append(fills, l.PieceFill(i))
		require.Len(t, slices.Collect(l.FilesOf(i)), 1)
	}
	require.Equal(t, []int64{60, 64, 36, 64, 30}, sizes)
	require.Equal(t, []int64{4, 0, 28, 0, 34}, fills)
	first, end := l.PiecesOf(3)
	require.Equal(t, []int{1, 3}, []int{first, end})
	require.EqualValues(t, 36, l.Overlap(3, 2))
	require.Equal(t, 36, l.BlockLen(2, 0))
}
