// Package storage keeps the content of one torrent: in memory, in files under a directory, or in a storage of
// the user's own. It verifies what is there, remembers across runs what was verified, and notices what other
// programs change. Everything that it asks of the operating system goes through a Disk.
//
// A Store belongs to one download, which closes it. All of its methods may be called from any goroutine.
package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
)

var (
	// ErrClosed is returned by every method of a Store after Close.
	ErrClosed = errors.New("torrent: closed")
	// ErrTooLarge is returned for content that does not fit in the memory allowed, or in one slice.
	ErrTooLarge = errors.New("torrent: larger than the memory allowed")
	// ErrInUse is returned where another Store already writes the same content to the same directory.
	ErrInUse = errors.New("torrent: already in use by another download")
	// ErrChanged is returned by Changed if a file is not as it was left, and not if looking at it failed.
	ErrChanged = errors.New("changed by another program")
)

// Content is what a Store needs to know of a torrent.
type Content struct {
	layout.Layout
	Name     string       // for errors
	InfoHash [20]byte     // names what lies beside the files
	NewCheck func() Check // returns one for a goroutine of its own
	Hashes   Hashes       // what the sidecar keeps of the hashes of pieces; nil is nothing
}

// Hashes are those of the pieces of a torrent that does not have all of them itself. The sidecar keeps them, so that the
// next run need not fetch them again. Their methods are called from any goroutine.
type Hashes interface {
	// AppendLearned appends those that the torrent did not have, in at most so many bytes.
	AppendLearned(b []byte, most int) []byte
	// Recall takes what AppendLearned appended in an earlier run, or anything else: it believes what proves itself. It does
	// not keep b.
	Recall(b []byte)
}

// Check compares pieces with what the torrent says of them. The bytes of a piece are written to it in
// order; then it knows which piece they are.
type Check interface {
	io.Writer
	// Matches reports whether all that was written since the last Reset is piece i.
	Matches(i int) bool
	// Reset begins another piece.
	Reset()
}

// User is a storage of the user's own: torrent.Storage, whose rules it keeps.
type User interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Close() error
}

// Store is the content of one torrent, and what a download asks of it. Offsets count through the whole content,
// padding included. Memory and files implement it; a User is wrapped.
type Store interface {
	User

	// WriteBlocks writes consecutive buffers as one run that starts at off, and may span files.
	WriteBlocks(blocks [][]byte, off int64) error

	// SetWanted says which files are wanted, by index in the layout. It is called before the first write, and
	// whenever the choice changes. Bytes that were kept aside for a file are moved into it. Files that were wanted
	// before stay.
	SetWanted(wanted []bool) error

	// Settle is called with all that is verified, once what is there was hashed, and after each SetWanted from then on.
	// Only from the first call on may anything be written. Empty files that are wanted are made. What was found
	// under another name than its own is kept if any of it is verified, and left alone otherwise. ctx ends it
	// between files.
	Settle(ctx context.Context, have bits.Set) error

	// Stop has what is in progress end with ErrClosed after the step that it is at, and what begins later at once. Reads
	// go on. It waits for nothing. Close follows.
	Stop()

	// LoadResume returns the claims of the last run that still hold, by size and modification time of the files:
	// the pieces that were verified, and the blocks of other pieces that were written. Pieces in Present() that
	// are not in have are worth hashing; partial counts only for those that fail.
	LoadResume() (have bits.Set, partial map[int]bits.Set)

	// Present is the pieces whose bytes may all be there, so that they are worth hashing.
	Present() bits.Set

	// SaveResume syncs, and then records have and partial for the next run. Both must have been taken before
	// the call. It does nothing if have is full or nothing was ever written.
	SaveResume(have bits.Set, partial map[int]bits.Set) error

	// Finish is called when everything that is wanted is verified. Files that are too long are cut if anything was
	// written to them, and what was
	// kept only for the next run is removed, unless it holds bytes of files that are not wanted yet.
	Finish() error

	// Keep is Finish, but that a sidecar with have and partial stays for the next run, which then need not hash
	// anything. It may also be called at the end of a run that is not complete: only files all of whose pieces are in
	// have are cut. If nothing can be written, as in a directory that is read-only, it leaves things as they are.
	Keep(have bits.Set, partial map[int]bits.Set) error

	// Changed returns an error if a file under piece is not as it was left. It is called before a piece is
	// served. ChangedFile is the same for one file, by index.
	Changed(piece int) error
	ChangedFile(file int) error

	// AnyChanged returns a piece of have for which Changed returns an error, and that error; or -1. It looks at
	// each file once. It is called before the content is handed over as complete.
	AnyChanged(have bits.Set) (piece int, err error)

	// Refresh returns piece, and those in the files under it that are not as they were left: they are to be hashed again,
	// and no claim about them holds until then. It accepts such a file as it is now if all of its pieces are in doubted,
	// because from then on Changed does not tell of it.
	Refresh(piece int, doubted bits.Set) (bits.Set, error)

	// Release says that nothing is written any more. Another Store may then write the same content.
	Release() error

	// Move moves the content, and what lies beside it, to another directory, and returns once all of it is there, or
	// with everything as it was. It goes on being read and written meanwhile. claims is called more than once, and returns what
	// SaveResume would be called with; progress is told how many of how many bytes are copied. It is errors.ErrUnsupported
	// where there is no directory.
	Move(ctx context.Context, dir string, claims func() (bits.Set, map[int]bits.Set), progress func(done, total int64)) error

	// Rest is Close, but that Wake makes the content readable again. What is in memory stays readable.
	Rest() error

	// Wake ends a Rest. Of a User's storage nothing can be read any more.
	Wake() error

	// Bytes is the whole of file i, unchanged since it was verified, as a slice of memory, a read-only
	// map or a copy, good until release is called.
	Bytes(i int) (b []byte, release func() error, err error)
}

// Unwritten reports whether a read failed only because the bytes are not there.
func Unwritten(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, fs.ErrNotExist)
}

// readFull reads all of p. If r ends before that, the error is io.ErrUnexpectedEOF.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	n, err := r.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	}
	return err
}

// checkRead returns an error for a read that cannot return a single byte.
func checkRead(c *Content, closed bool, off int64) error {
	switch {
	case closed:
		return ErrClosed
	case off < 0:
		return fmt.Errorf("read at %d: negative offset", off)
	case off >= c.Size():
		return io.EOF
	}
	return nil
}

// checkWrite returns an error for a write that is not wholly within the content.
func checkWrite(c *Content, closed bool, off, n int64) error {
	switch {
	case closed:
		return ErrClosed
	case off < 0 || n > c.Size()-off:
		return fmt.Errorf("write of %d bytes at %d: outside the %d bytes of content", n, off, c.Size())
	}
	return nil
}
