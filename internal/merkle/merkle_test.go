package merkle_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/merkle"
)

// levels are all levels of the full tree over content, made in the plainest way.
func levels(content []byte, height int) (all [][]merkle.Hash) {
	leaves := make([]merkle.Hash, 1<<height)
	for i := range leaves {
		if begin := i * merkle.BlockSize; begin < len(content) {
			leaves[i] = sha256.Sum256(content[begin:min(len(content), begin+merkle.BlockSize)])
		}
	}
	for all = append(all, leaves); len(leaves) > 1; all = append(all, leaves) {
		above := make([]merkle.Hash, len(leaves)/2)
		for i := range above {
			above[i] = sha256.Sum256(append(leaves[2*i][:], leaves[2*i+1][:]...))
		}
		leaves = above
	}
	return all
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

// layerOf is the part of a level that covers content.
func layerOf(level []merkle.Hash, at, length int) (layer []byte) {
	for i := 0; i<<at*merkle.BlockSize < length; i++ {
		layer = append(layer, level[i][:]...)
	}
	return layer
}

func TestHeight(t *testing.T) {
	for n, want := range map[int64]int{0: 0, 1: 0, 2: 1, 3: 2, 4: 2, 5: 3, 1 << 40: 40, 1<<40 + 1: 41} {
		require.Equal(t, want, merkle.Height(n), "%d", n)
	}
	require.EqualValues(t, 0, merkle.Blocks(0))
	require.EqualValues(t, 1, merkle.Blocks(1))
	require.EqualValues(t, 1, merkle.Blocks(merkle.BlockSize))
	require.EqualValues(t, 2, merkle.Blocks(merkle.BlockSize+1))
}

func TestPad(t *testing.T) {
	require.Equal(t, merkle.Hash{}, merkle.Pad(0))
	pad := merkle.Pad(1)
	require.Equal(t, "f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb4b", hex.EncodeToString(pad[:]))
}

// The root is that of the whole tree, however the content comes, and each layer has it.
func TestRoots(t *testing.T) {
	h := merkle.NewHasher()
	for _, length := range []int{0, 1, merkle.BlockSize - 1, merkle.BlockSize, merkle.BlockSize + 1, 2 * merkle.BlockSize, 3 * merkle.BlockSize, 7*merkle.BlockSize + 5, 8 * merkle.BlockSize, 9*merkle.BlockSize - 1} {
		content := random(length)
		least := merkle.Height(merkle.Blocks(int64(length)))
		for height := least; height < least+3; height++ {
			all := levels(content, height)
			want := all[height][0]
			_, _ = h.Write([]byte("what is forgotten"))
			h.Reset()
			for rest := content; len(rest) > 0; {
				n := min(len(rest), 10_000)
				written, err := h.Write(rest[:n])
				require.NoError(t, err)
				require.Equal(t, n, written)
				rest = rest[n:]
			}
			require.Equal(t, want, h.Sum(height), "%d bytes, height %d", length, height)
			for level := range all {
				require.Equal(t, want, merkle.Root(layerOf(all[level], level, length), level, height), "%d bytes, level %d of %d", length, level, height)
			}
		}
	}
	require.Equal(t, merkle.Hash(sha256.Sum256([]byte("block"))), merkle.HashBlock([]byte("block")))
}

func TestRequestsThatAreNotSound(t *testing.T) {
	const height = 5
	for _, r := range []merkle.Request{
		{-1, 0, 2, 0}, {height, 0, 2, 0}, {0, 0, 1, 0}, {0, 0, 0, 0}, {0, 0, -2, 0}, {0, 0, 3, 0}, {0, 2, 4, 0}, {0, -2, 2, 0},
		{0, 32, 2, 0}, {0, 0, 64, 0}, {4, 0, 4, 0}, {0, 0, 2, -1}, {0, 0, 2, 64},
	} {
		require.False(t, r.Sound(height), "%+v", r)
	}
	require.True(t, merkle.Request{Length: 32}.Sound(height))
	require.True(t, merkle.Request{Base: 4, Length: 2, Proofs: 63}.Sound(height))
}

// A tree answers with the hashes and their proofs, and Prove accepts nothing else.
func TestAnswersProveThemselves(t *testing.T) {
	for _, blocks := range []int{2, 3, 5, 8, 700, 1100} {
		content := random(blocks * merkle.BlockSize)
		if blocks > 100 { // the hashes are what matters
			content = content[:blocks]
		}
		height := merkle.Height(int64(blocks))
		var all [][]merkle.Hash
		var leaves []byte
		if blocks <= 100 {
			all = levels(content, height)
			leaves = layerOf(all[0], 0, len(content))
		} else {
			for i := range blocks {
				leaf := sha256.Sum256(content[i : i+1])
				leaves = append(leaves, leaf[:]...)
			}
		}
		root := merkle.Root(leaves, 0, height)
		tree := merkle.NewTree(leaves, 0, height)
		require.Equal(t, root, tree.Node(height, 0))
		for level, nodes := range all {
			for i, want := range nodes {
				require.Equal(t, want, tree.Node(level, i))
			}
		}
		for base := range height {
			for length := 2; length <= 1<<(height-base); length *= 2 {
				last := 1<<(height-base) - length
				for _, index := range []int{0, last, last / 2 / length * length} {
					r := merkle.Request{Base: base, Index: index, Length: length, Proofs: height}
					require.True(t, r.Sound(height))
					answer := tree.Append(nil, r)
					what := fmt.Sprintf("%d blocks, %+v", blocks, r)
					require.Len(t, answer, merkle.Size*r.Hashes(height), what)
					require.True(t, merkle.Prove(root, height, r, answer), what)
					require.False(t, merkle.Prove(merkle.Hash{1}, height, r, answer), what)
					require.False(t, merkle.Prove(root, height, r, answer[merkle.Size:]), what)
					answer[len(answer)-1] ^= 1
					require.False(t, merkle.Prove(root, height, r, answer), what)
				}
			}
		}
		r := merkle.Request{Length: 2}
		if height > 1 {
			require.Equal(t, 2, r.Hashes(height))
			require.False(t, merkle.Prove(root, height, r, tree.Append(nil, r)), "without the levels up to the root nothing is proven")
		}
		require.Len(t, tree.AppendProof(nil, merkle.Request{Length: 2, Proofs: height}), merkle.Size*(height-1))
	}
}

// An answer is made of one run of the layer and of one node of each layer above, however long the layer is. These take little room.
func TestAnswersTakeOneRun(t *testing.T) {
	const base, hashes, run = 3, 20*merkle.Run + 5, merkle.Run * merkle.Size
	layer := random(hashes * merkle.Size)
	height := base + merkle.Height(hashes)
	root := merkle.Root(layer, base, height)
	tree := merkle.NewTree(layer, base, height)
	kept := 0
	for k, above := range tree.Above() {
		require.Equal(t, root, merkle.Root(above, base+merkle.Height(merkle.Run)+k, height))
		kept += len(above)
	}
	require.Less(t, kept, len(layer)/14)
	for _, index := range []int{0, 7*merkle.Run + 6, hashes - 1} {
		index &^= 1
		r := merkle.Request{Base: base, Index: index, Length: 2, Proofs: height}
		tree := merkle.NewTree(bytes.Clone(layer), base, height)
		want := tree.Append(nil, r)
		require.True(t, merkle.Prove(root, height, r, want))
		scrambled := bytes.Clone(layer)
		tree = merkle.NewTree(scrambled, base, height)
		for from := 0; from < len(layer); from += run {
			if from/run != index/merkle.Run {
				clear(scrambled[from:min(from+run, len(layer))])
			}
		}
		for k, above := range tree.Above() {
			for i := range len(above) / merkle.Size {
				if i != index/(merkle.Run<<k)^1 {
					clear(above[i*merkle.Size:][:merkle.Size])
				}
			}
		}
		require.True(t, bytes.Equal(want, tree.Append(nil, r)), "hashes from %d on", index)
	}
	r := merkle.Request{Base: base, Index: hashes + 3, Length: 4, Proofs: height}
	require.True(t, merkle.Prove(root, height, r, tree.Append(nil, r)), "nothing but padding")
}

// BenchmarkTree answers requests for few hashes of a long layer, and for as many as may be asked for.
func BenchmarkTree(b *testing.B) {
	const hashes = 1_000_000
	layer := random(hashes * merkle.Size)
	height := merkle.Height(hashes)
	for _, length := range []int{2, 512, 8192} {
		b.Run(strconv.Itoa(length), func(b *testing.B) {
			tree := merkle.NewTree(layer, 0, height)
			r := merkle.Request{Index: 8192, Length: length, Proofs: height}
			var answer []byte
			for b.Loop() {
				answer = tree.Append(answer[:0], r)
			}
		})
	}
}

func FuzzProve(f *testing.F) {
	f.Add([]byte("hashes"), 0, 0, 2, 3)
	f.Add(make([]byte, 3*merkle.Size), 1, 2, 2, 1)
	f.Fuzz(func(t *testing.T, hashes []byte, base, index, length, proofs int) {
		const height = 4
		r := merkle.Request{Base: base, Index: index, Length: length, Proofs: proofs}
		if r.Sound(height) && merkle.Prove(merkle.Hash{}, height, r, hashes) {
			t.Fatalf("%x prove the root of nothing", hashes)
		}
	})
}

func BenchmarkHasher(b *testing.B) {
	block, h := make([]byte, merkle.BlockSize), merkle.NewHasher()
	b.SetBytes(merkle.BlockSize)
	for b.Loop() {
		_, _ = h.Write(block)
	}
}
