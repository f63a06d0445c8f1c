package torrent

import (
	"context"
	"crypto/sha1"
	"hash"
	"io"

	"github.com/shoal-go/torrent/internal/storage"
)

// Storage is where the content of one torrent lives. Offsets count through the whole torrent in
// torrent order, padding files included, so the content is one run of bytes; a call may span files
// and pieces. ReadAt and WriteAt are called from many goroutines at once, never for overlapping
// writes, and may not keep the slice they are given.
//
// ReadAt returns io.EOF, io.ErrUnexpectedEOF or fs.ErrNotExist (as errors.Is tells) where bytes were
// never written; zeros are as good, for nothing is believed before it was hashed. Other errors, and
// all errors of the other methods, end the download.
//
// Package storagetest has a suite that an implementation can be tried with.
type Storage interface {
	io.ReaderAt
	io.WriterAt
	// Sync returns once all that was written will survive a loss of power.
	Sync() error
	// Close releases what the storage holds. Nothing is called after it.
	Close() error
}

// Verify hashes what dir holds of the content and returns the pieces that are right. Nothing is
// written, and no claim of an earlier run is believed. A dir that is not there is an error, a file
// that is missing or short is not. The context ends it between reads of at most 256 KiB.
func (t *Torrent) Verify(ctx context.Context, dir string) (Bitfield, error) {
	have, err := storage.VerifyDir(ctx, t.content(), dir)
	if err != nil {
		return Bitfield{}, err
	}
	return Bitfield{have}, nil
}

// content is what storage needs to know of t.
func (t *Torrent) content() storage.Content {
	return storage.Content{
		Layout:   t.layout,
		Name:     t.name,
		InfoHash: t.infoHash,
		NewCheck: t.newCheck,
	}
}

func (t *Torrent) newCheck() storage.Check { return &pieceCheck{Hash: sha1.New(), t: t} }

// pieceCheck compares pieces with the SHA-1 sums in the info dictionary (BEP 3).
type pieceCheck struct {
	hash.Hash
	t   *Torrent
	sum Hash
}

// Matches reports whether what was written since the last Reset is piece i.
func (c *pieceCheck) Matches(i int) bool {
	c.Sum(c.sum[:0])
	return c.sum == c.t.pieceHash(i)
}
