package torrent

import (
	"crypto/sha1"
	"errors"
	"hash"

	"github.com/shoal-go/torrent/internal/merkle"
	"github.com/shoal-go/torrent/internal/storage"
)

// errInconsistent ends a download of a hybrid if a piece has its hash of one version and not the one of the other.
var errInconsistent = errors.New("the torrent is inconsistent: its hashes of version 1 and of version 2 are of different content")

func (t *Torrent) newCheck() storage.Check {
	c := &pieceCheck{t: t}
	if t.version != V2 {
		c.sha1 = sha1.New()
	}
	if t.version != V1 {
		c.tree = merkle.NewHasher()
	}
	return c
}

// pieceCheck compares pieces with the SHA-1 sums in the info dictionary (BEP 3), with the hash trees of version 2 (BEP 52), or
// with both.
type pieceCheck struct {
	t    *Torrent
	sha1 hash.Hash      // nil for version 2 alone
	tree *merkle.Hasher // nil for version 1
	sum  Hash
	// disagree is whether the last piece is that of one version and not that of the other.
	disagree bool
	// root is the root of the last piece. unproven is set if only its SHA-1 sum is known, and right.
	root     merkle.Hash
	unproven bool
}

func (c *pieceCheck) Write(p []byte) (int, error) {
	if c.sha1 != nil {
		c.sha1.Write(p)
	}
	if c.tree != nil {
		c.tree.Write(p)
	}
	return len(p), nil
}

func (c *pieceCheck) Reset() {
	if c.sha1 != nil {
		c.sha1.Reset()
	}
	if c.tree != nil {
		c.tree.Reset()
	}
}

// Matches reports whether the bytes written since the last Reset are piece i. A piece whose hash of version 2 is not known yet
// does not match, except in a hybrid, where its SHA-1 sum decides.
func (c *pieceCheck) Matches(i int) bool {
	v1, v2 := true, true
	if c.sha1 != nil {
		writeZeros(c.sha1, c.t.layout.PieceFill(i))
		c.sha1.Sum(c.sum[:0])
		v1 = c.sum == c.t.pieceHash(i)
	}
	if c.tree != nil {
		want, known := c.t.hashes.Hash(i)
		c.root = c.tree.Sum(c.t.hashes.HeightOf(i))
		v2 = known && c.root == want || !known && c.sha1 != nil
		c.disagree = c.sha1 != nil && known && v1 != v2
		c.unproven = !known && v1
	}
	return v1 && v2
}

// writeZeros writes n zeros: the padding (BEP 47) at the end of a piece of version 1.
func writeZeros(h hash.Hash, n int64) {
	var zeros [4096]byte
	for n > 0 {
		k := min(n, int64(len(zeros)))
		h.Write(zeros[:k])
		n -= k
	}
}
