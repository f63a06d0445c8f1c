package torrent

import (
	"context"
	"fmt"
	"io"
	"io/fs"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/contentfs"
	"github.com/shoal-go/torrent/internal/storage"
)

// Storage holds the content of one torrent. The content is one run of bytes: offsets count through all
// files in torrent order, padding files included, and a call may span files and pieces. ReadAt and
// WriteAt are called from many goroutines at once, but writes never overlap, and no call goes beyond the end of the
// content, which is Torrent.Size. They must not keep the slice they are given.
//
// Where bytes were never written, ReadAt returns zeros, or an error that matches io.EOF,
// io.ErrUnexpectedEOF or fs.ErrNotExist: everything is hashed before it is believed. Any other error of
// ReadAt, and any error of another method, ends the download.
//
// A storage may be opened again for the same torrent, with what it holds, once it was closed. It must then return the
// data that was written before, even of incomplete pieces. Data that is lost nevertheless is fetched again, unless
// Verified claims it.
//
// A storage with one object per file can compute the place of a File from its Offset and Length. Padding between
// files is zeros and need not be stored.
//
// These methods are called if a storage has them:
//
//	PieceVerified(i int) error
//	Verified() (Bitfield, error)
//
// PieceVerified is called for each verified piece after it was written, and for pieces that were already there at the start and
// were verified by hashing. It is called again for a piece that was lost and fetched a second time, and from many goroutines at
// once. Piece i begins at i times Torrent.PieceLength. Verified is called when a download begins. It returns the pieces that the
// storage knows to be complete; they are not hashed.
//
// Package storagetest has a test suite for implementations, and examples/boltstore keeps content in a bbolt database.
type Storage interface {
	io.ReaderAt
	io.WriterAt
	// Sync returns once all data written so far will survive a loss of power. It is called from time to time, before
	// a download is complete, and before Close.
	Sync() error
	// Close releases what the storage holds. Nothing is called after it.
	Close() error
}

// wrapStorage makes a store of a Storage that the user's function opened.
func (t *Torrent) wrapStorage(st Storage) (storage.Store, error) {
	whole := bits.New(t.NumPieces())
	if s, ok := st.(interface{ Verified() (Bitfield, error) }); ok {
		said, err := s.Verified()
		if err == nil && said.Len() != t.NumPieces() {
			err = fmt.Errorf("the bitfield has %d pieces, not %d", said.Len(), t.NumPieces())
		}
		if err != nil {
			st.Close()
			return nil, fmt.Errorf("ask storage what it has verified: %w", err)
		}
		whole = said.pieces
	}
	var tell func(int) error
	if s, ok := st.(interface{ PieceVerified(int) error }); ok {
		tell = s.PieceVerified
	}
	return storage.Wrap(t.content(), st, whole, tell), nil
}

// FSStorage shares content that lies in a file system, such as an embed.FS or an archive, under the paths of File.Path, or
// under these paths without the name of the torrent. Use the result as Options.Storage. Nothing can be written to it: a
// download that lacks pieces ends with an error. The bytes of a file that is missing or short count as missing content.
//
// Files are opened when they are first read, and stay open until the download is closed. One that is neither an
// io.ReaderAt nor an io.Seeker is read into memory.
func FSStorage(fsys fs.FS) func(*Torrent) (Storage, error) {
	return func(t *Torrent) (Storage, error) {
		return fsStorage{contentfs.NewSource(t.layout, fsys)}, nil
	}
}

// fsStorage is a Storage that cannot be written to.
type fsStorage struct{ *contentfs.Source }

func (fsStorage) WriteAt([]byte, int64) (int, error) {
	return 0, fmt.Errorf("write to an fs.FS: %w", ErrUnsupported)
}

func (fsStorage) Sync() error { return nil }

// Verify hashes the content that is in dir and returns the pieces that are right. It writes nothing, and uses no
// resume sidecar. It is an error if dir does not exist, but not if files are missing or short. When ctx ends, Verify
// returns after at most one more read of 256 KiB, or a few seconds later if the disk hangs.
func (t *Torrent) Verify(ctx context.Context, dir string) (Bitfield, error) {
	if t.NumPieces() == 0 {
		return Bitfield{}, errNoTorrent
	}
	var have bits.Set
	err := inTime(ctx, func() (err error) {
		have, err = storage.VerifyDir(ctx, t.content(), dir)
		return err
	})
	if err != nil {
		return Bitfield{}, err
	}
	return Bitfield{have}, nil
}

// content returns what storage needs to know of t.
func (t *Torrent) content() storage.Content {
	c := storage.Content{
		Layout:   t.layout,
		Name:     t.name,
		InfoHash: t.infoHash,
		NewCheck: t.newCheck,
	}
	if t.version != V1 {
		c.Hashes = t.hashes
	}
	return c
}
