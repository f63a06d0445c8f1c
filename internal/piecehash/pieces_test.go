package piecehash_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/merkle"
	"github.com/shoal-go/torrent/internal/piecehash"
)

// content is bytes of which no two blocks are the same.
func content(n int) (b []byte) {
	for i := 0; len(b) < n; i++ {
		b = append(b, bytes.Repeat([]byte{byte(i)}, merkle.BlockSize)...)
	}
	return b[:n]
}

// hashes are the root of content, and its layer of pieces of two blocks.
func hashes(content []byte) (root merkle.Hash, layer []byte) {
	h := merkle.NewHasher()
	_, _ = h.Write(content)
	root = h.Sum(merkle.Height(merkle.Blocks(int64(len(content)))))
	for len(content) > 0 {
		n := min(len(content), 2*merkle.BlockSize)
		_, _ = h.Write(content[:n])
		sum := h.Sum(1)
		layer = append(layer, sum[:]...)
		content = content[n:]
	}
	return root, layer
}

// pieces are of three files: one of several pieces, twice, and one that is shorter than a piece.
func pieces(t *testing.T, known bool) (p *piecehash.Pieces, layer []byte, roots []merkle.Hash) {
	const pieceLength = 2 * merkle.BlockSize
	long, short := content(5*merkle.BlockSize+1), content(merkle.BlockSize+1)
	root, layer := hashes(long)
	require.Len(t, layer, 3*merkle.Size)
	other, _ := hashes(short)
	roots = []merkle.Hash{root, {}, root, {}, other, {}}
	n, pad := int64(len(long)), int64(merkle.BlockSize-1)
	l := layout.NewAligned(pieceLength,
		layout.File{Path: "a", Length: n}, layout.File{Length: pad, Pad: true},
		layout.File{Path: "b", Length: n}, layout.File{Length: pad, Pad: true},
		layout.File{Path: "c", Length: int64(len(short))}, layout.File{Path: "empty"},
	)
	layers := make([][]byte, len(roots))
	if known {
		layers[0], layers[2] = layer, layer
	}
	return piecehash.New(l, roots, layers), layer, roots
}

func TestPieces(t *testing.T) {
	p, layer, roots := pieces(t, true)
	require.Equal(t, 1, p.Level())
	require.Empty(t, p.Missing())
	for i := range 6 {
		h, known := p.Hash(i)
		require.True(t, known)
		require.Equal(t, merkle.Hash(layer[i%3*merkle.Size:]), h)
		file, index := p.FileOf(i)
		require.Equal(t, []int{i / 3 * 2, i % 3}, []int{file, index})
		require.Equal(t, 1, p.HeightOf(i))
	}
	h, known := p.Hash(6)
	require.True(t, known)
	require.Equal(t, roots[4], h)
	require.Equal(t, 1, p.HeightOf(6))
	require.Equal(t, 3, p.Height(0))
	require.Equal(t, roots[0], p.Root(0))
	require.Equal(t, layer, p.Layer(2))
	require.Nil(t, p.Layer(4))
	file, ok := p.File(roots[4])
	require.True(t, ok)
	require.Equal(t, 4, file)
	_, ok = p.File(merkle.Hash{})
	require.False(t, ok)
	require.Nil(t, p.Tree(4))
	r := merkle.Request{Base: 1, Length: 4}
	require.True(t, merkle.Prove(roots[0], 3, r, p.Tree(0).Append(nil, r)))
	require.Same(t, p.Tree(0), p.Tree(0))
}

func TestLayersThatAreLearned(t *testing.T) {
	p, layer, _ := pieces(t, false)
	require.Equal(t, []int{0, 2}, p.Missing())
	_, known := p.Hash(1)
	require.False(t, known)
	require.Nil(t, p.Tree(0))
	require.Empty(t, p.Learn(0, layer[:2*merkle.Size]), "too short")
	require.Empty(t, p.Learn(0, append(make([]byte, merkle.Size), layer[merkle.Size:]...)), "not its hashes")
	require.False(t, p.Known(2))
	require.Equal(t, []int{0, 2}, p.Learn(2, layer), "of both files with the root")
	require.Empty(t, p.Learn(0, layer), "known")
	require.True(t, p.Known(0))
	h, known := p.Hash(1)
	require.True(t, known)
	require.Equal(t, merkle.Hash(layer[merkle.Size:]), h)
	require.NotNil(t, p.Tree(0))
}

func TestBlocksThatAreLearned(t *testing.T) {
	p, layer, _ := pieces(t, true)
	_, known := p.Block(1, 1)
	require.False(t, known)
	p.LearnBlocks(1, layer[:2*merkle.Size])
	h, known := p.Block(1, 1)
	require.True(t, known)
	require.Equal(t, merkle.Hash(layer[merkle.Size:]), h)
	p.ForgetBlocks(1)
	_, known = p.Block(1, 1)
	require.False(t, known)
}

// Of many files, those whose layers are missing are found in order, and one layer is learned for all with the same root.
func TestMissingLayers(t *testing.T) {
	const files, kinds = 30, 10
	var list []layout.File
	var roots []merkle.Hash
	layers := make(map[int][]byte)
	for i := range files {
		root, layer := hashes(bytes.Repeat([]byte{byte(i % kinds)}, 4*merkle.BlockSize))
		list = append(list, layout.File{Path: string(rune('a' + i)), Length: 4 * merkle.BlockSize})
		roots = append(roots, root)
		layers[i%kinds] = layer
	}
	p := piecehash.New(layout.NewAligned(2*merkle.BlockSize, list...), roots, make([][]byte, files))
	learned := 0
	for _, kind := range []int{3, 0, 1, 9, 8, 7, 2, 4, 6, 5} {
		missing := p.Missing()
		require.Len(t, missing, files-learned)
		require.True(t, slices.IsSorted(missing))
		of := func(i int) bool { return i%kinds == kind }
		first, ok := p.FirstMissing(0, of)
		require.True(t, ok)
		require.Equal(t, kind, first)
		first, ok = p.FirstMissing(kind+1, of)
		require.True(t, ok)
		require.Equal(t, kinds+kind, first)
		require.Equal(t, []int{kind, kinds + kind, 2*kinds + kind}, p.Learn(kinds+kind, layers[kind]))
		first, ok = p.FirstMissing(0, of)
		require.False(t, ok)
		require.Equal(t, files, first)
		learned += 3
	}
	require.Empty(t, p.Missing())
}

// Layers that were learned are recalled by another Pieces of the same torrent, within bounds and if they are right.
func TestLayersThatAreRecalled(t *testing.T) {
	p, layer, roots := pieces(t, false)
	require.Empty(t, p.Learned())
	require.Empty(t, p.AppendLearned(nil, 1000))
	require.NotEmpty(t, p.Learn(0, layer))
	require.Equal(t, map[merkle.Hash][]byte{roots[0]: layer}, p.Learned())
	kept := p.AppendLearned(nil, 4+len(layer))
	require.Len(t, kept, 4+len(layer), "once for both files")
	require.Empty(t, p.AppendLearned(nil, 3+len(layer)))
	p.Recall(kept) // is known

	next, _, _ := pieces(t, false)
	kept[10] ^= 1
	next.Recall(kept)
	require.Len(t, next.Missing(), 2)
	kept[10] ^= 1
	next.Recall(kept)
	kept[10] ^= 1 // it has a copy
	require.Empty(t, next.Missing())
	require.Equal(t, layer, next.Layer(2))

	known, _, _ := pieces(t, true)
	require.Empty(t, known.Learned(), "it had them itself")
	require.Empty(t, known.AppendLearned(nil, 1000))
}

func FuzzRecall(f *testing.F) {
	content := content(5*merkle.BlockSize + 1)
	root, layer := hashes(content)
	l := layout.NewAligned(2*merkle.BlockSize, layout.File{Path: "a", Length: int64(len(content))},
		layout.File{Length: merkle.BlockSize - 1, Pad: true}, layout.File{Path: "b", Length: 5}, layout.File{Path: "empty"})
	f.Add(append([]byte{0, 0, 0, 0}, layer...))
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		p := piecehash.New(l, []merkle.Hash{root, {}, {1}, {}}, make([][]byte, 4))
		p.Recall(b)
		if got := p.Layer(0); got != nil && !bytes.Equal(got, layer) {
			t.Fatalf("%x is believed", got)
		}
	})
}

// Of many files with one root, each may turn out to be whole. That learns nothing new after the first, and must not take a pass over all
// of them for each: it would take minutes.
func TestManyFilesWithOneRoot(t *testing.T) {
	const files = 300_000
	root, layer := hashes(make([]byte, 4*merkle.BlockSize))
	list, roots := make([]layout.File, files), make([]merkle.Hash, files)
	for i := range files {
		list[i], roots[i] = layout.File{Path: "a", Length: 4 * merkle.BlockSize}, root
	}
	p := piecehash.New(layout.NewAligned(2*merkle.BlockSize, list...), roots, make([][]byte, files))
	missing := p.Missing()
	require.Len(t, missing, files)
	for k, i := range missing {
		require.Equal(t, k == 0, p.Learn(i, layer) != nil)
	}
	require.Empty(t, p.Missing())
}

// The tree of a file of millions of pieces takes long to make. Meanwhile, the hashes of its pieces are read under locks that every
// peer waits for.
func TestTreeKeepsNoReaderWaiting(t *testing.T) {
	p, _, _ := pieces(t, true)
	made := make(chan *merkle.Tree)
	p.WhileRead(func() {
		go func() { made <- p.Tree(0) }()
		select {
		case tree := <-made:
			require.NotNil(t, tree)
		case <-time.After(time.Minute):
			t.Fatal("the tree waits until no hash is read")
		}
	})
}

// A layer whose parts were proven one by one is not hashed again as a whole.
func TestLearnProven(t *testing.T) {
	p, layer, _ := pieces(t, false)
	require.Equal(t, []int{0, 2}, p.LearnProven(0, layer))
	require.Nil(t, p.LearnProven(0, layer), "it is known")
	require.Empty(t, p.Missing())
	h, known := p.Hash(4)
	require.True(t, known)
	require.Equal(t, merkle.Hash(layer[merkle.Size:]), h)
}
