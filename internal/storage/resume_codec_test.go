package storage

import (
	"crypto/sha1"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
)

// one is a set of n indices with i in it.
func one(n, i int) bits.Set {
	b := bits.New(n)
	b.Add(i)
	return b
}

func FuzzParseResume(f *testing.F) {
	c := Content{Layout: layout.New(4*layout.BlockSize,
		layout.File{Length: 3 * layout.BlockSize}, layout.File{Length: 7 * layout.BlockSize}, layout.File{}, layout.File{Length: 1})}
	r := &resume{files: make([]resumeStamp, 5), have: one(3, 1), partial: map[int]bits.Set{0: one(4, 2), 2: one(3, 0)}}
	b := r.append(nil, &c)
	f.Add(b[:len(b)-sha1.Size])
	r.hashes = []byte("hashes")
	b = r.append(nil, &c)
	f.Add(b[:len(b)-sha1.Size])
	f.Add([]byte(resumeMagic))
	f.Fuzz(func(t *testing.T, p []byte) {
		// With a correct checksum the rest of the parser is reached.
		sum := sha1.Sum(p)
		p = append(p, sum[:]...)
		r, err := parseResume(p, &c)
		if err != nil {
			return
		}
		require.Equal(t, c.NumPieces(), r.have.Len())
		for piece, blocks := range r.partial {
			require.Less(t, piece, c.NumPieces())
			require.Equal(t, c.NumBlocks(piece), blocks.Len())
		}
		again, err := parseResume(r.append(nil, &c), &c)
		require.NoError(t, err)
		require.Equal(t, r, again)
	})
}

func TestResumeSidecarOfManyFilesAndPieces(t *testing.T) {
	c := Content{Layout: layout.New(1, slices.Repeat([]layout.File{{Length: 1}}, 2000)...)}
	r := &resume{files: make([]resumeStamp, 2001), have: bits.New(2000), partial: make(map[int]bits.Set)}
	for i := range 2000 {
		r.partial[i] = one(1, 0)
	}
	b := r.append(nil, &c)
	require.LessOrEqual(t, int64(len(b)), maxResumeSize(&c))
	got, err := parseResume(b, &c)
	require.NoError(t, err)
	require.Equal(t, r, got)
	require.Len(t, maps.Clone(got.partial), 2000)
}
