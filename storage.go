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
// A storage may be opened again for the same torrent, with what it holds, once it was closed. It answers then as it
// would have before: what was written is there, whole or not. What it lost all the same is fetched again, unless Verified
// claims it.
//
// A storage that has one object a file finds where a File lies by its Offset and Length; between files lies padding,
// which is zeros and need not be stored.
//
// These methods are called if a storage has them:
//
//	PieceVerified(i int) error
//	Verified() (Bitfield, error)
//
// PieceVerified is told of each piece that has its hash, after it was written, also of those that were hashed because
// they were there at the start, from many goroutines at once, and again of one that was lost and came a second time. Piece i
// begins at i times Torrent.PieceLength. Verified says, when a download begins, which pieces the storage knows to be whole; they
// are not hashed.
//
// Package storagetest has a suite that an implementation can be tried with, and examples/boltstore keeps content in a bbolt
// database.
type Storage interface {
	io.ReaderAt
	io.WriterAt
	// Sync returns once all that was written will survive a loss of power. It is called from time to time, before a
	// download is done, and before Close.
	Sync() error
	// Close releases what the storage holds. Nothing is called after it.
	Close() error
}

// wrapStorage makes a store of what the user's function opened.
func (t *Torrent) wrapStorage(st Storage) (storage.Store, error) {
	whole := bits.New(t.NumPieces())
	if s, ok := st.(interface{ Verified() (Bitfield, error) }); ok {
		said, err := s.Verified()
		if err == nil && said.Len() != t.NumPieces() {
			err = fmt.Errorf("it speaks of %d pieces, not %d", said.Len(), t.NumPieces())
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

// FSStorage shares content that lies in a file system, such as an embed.FS or an archive, under the paths that
// File.Path says, or under these without the name of the torrent. It is for Options.Storage. Nothing can be written to it: a
// download that lacks something ends with an error. A file that is missing or short is taken for content that is not there.
//
// Files are opened when they are first read, and stay open until the download is closed. One that is no io.ReaderAt and
// no io.Seeker is read into memory.
func FSStorage(fsys fs.FS) func(*Torrent) (Storage, error) {
	return func(t *Torrent) (Storage, error) {
		return fsStorage{contentfs.NewSource(t.layout, fsys)}, nil
	}
}

// fsStorage is a Storage that is only read.
type fsStorage struct{ *contentfs.Source }

func (fsStorage) WriteAt([]byte, int64) (int, error) {
	return 0, fmt.Errorf("write to an fs.FS: %w", ErrUnsupported)
}

func (fsStorage) Sync() error { return nil }

// Verify hashes what dir holds of the content and returns the pieces that are right. It writes nothing,
// and believes no claim of an earlier run. A dir that is not there is an error; a file that is missing or
// short is not. The context ends it between reads of at most 256 KiB.
func (t *Torrent) Verify(ctx context.Context, dir string) (Bitfield, error) {
	if t.NumPieces() == 0 {
		return Bitfield{}, errNoTorrent
	}
	have, err := storage.VerifyDir(ctx, t.content(), dir)
	if err != nil {
		return Bitfield{}, err
	}
	return Bitfield{have}, nil
}

// content is what storage needs to know of t.
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
