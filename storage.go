package torrent

import (
	"context"
	"crypto/sha1"
	"hash"
	"io"

	"github.com/shoal-go/torrent/internal/storage"
)

// Storage holds the content of one torrent. The content is one run of bytes: offsets count through all
// files in torrent order, padding files included, and a call may span files and pieces. ReadAt and
// WriteAt are called from many goroutines at once, but writes never overlap. They must not keep the
// slice they are given.
//
// Where bytes were never written, ReadAt returns zeros, or an error that matches io.EOF,
// io.ErrUnexpectedEOF or fs.ErrNotExist: everything is hashed before it is believed. Any other error of
// ReadAt, and any error of another method, ends the download.
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

// Verify hashes what dir holds of the content and returns the pieces that are right. It writes nothing,
// and believes no claim of an earlier run. A dir that is not there is an error; a file that is missing or
// short is not. The context ends it between reads of at most 256 KiB.
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
