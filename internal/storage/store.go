// Package storage keeps the content of one torrent: in memory, in files under a directory, or in a storage that the user
// implements. It verifies the content that exists, records across runs what was verified, and finds changes by other programs.
// Every call to the operating system goes through a Disk.
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
	// ErrClosed is returned by the methods of a Store after Close.
	ErrClosed = errors.New("torrent: closed")
	// ErrTooLarge is returned for content that does not fit in the allowed memory, in one slice, or in the maps of the process.
	ErrTooLarge = errors.New("torrent: larger than the memory allowed")
	// ErrInUse is returned if another Store already writes the same content to the same directory, or another download has
	// claimed a wanted file.
	ErrInUse = errors.New("torrent: already in use by another download")
	// ErrChanged is returned by Changed if a file is not as it was left. It is not returned if the file could not be examined.
	ErrChanged = errors.New("changed by another program")
	// ErrUnexamined is returned by Changed if a file could not be examined, so that it may be as it was left.
	ErrUnexamined = errors.New("cannot be examined")
)

// Content is what a Store needs to know of a torrent.
type Content struct {
	layout.Layout
	Name     string       // for errors
	InfoHash [20]byte     // names the files beside the content
	NewCheck func() Check // returns a Check for use by one goroutine
	Hashes   Hashes       // fetched hashes of pieces, for the sidecar to keep; nil for none
}

// Hashes are the piece hashes of a torrent that does not contain all of them (BEP 52). The sidecar keeps those that were fetched,
// so that the next run need not fetch them again. The methods are called from any goroutine.
type Hashes interface {
	// AppendLearned appends the hashes that the torrent did not contain, as far as they fit in most bytes.
	AppendLearned(b []byte, most int) []byte
	// Recall accepts hashes from b, which AppendLearned appended in an earlier run. b may also be damaged or forged: Recall
	// accepts only hashes that it can verify. It does not keep b.
	Recall(b []byte)
}

// Check verifies pieces against the hashes of the torrent. The bytes of a piece are written to it in order; then Matches reports
// whether they are a given piece.
type Check interface {
	io.Writer
	// Matches reports whether all that was written since the last Reset is piece i.
	Matches(i int) bool
	// Reset discards what was written, to begin another piece.
	Reset()
}

// User is a storage that the user implements: a torrent.Storage, whose contract applies.
type User interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Close() error
}

// Store is the content of one torrent, with the operations that a download needs. Offsets are in bytes from the start of the
// content, padding included. NewMemory, Claims.OpenFiles and Wrap return one.
type Store interface {
	User

	// Place returns where the content is. It waits for no disk.
	Place() Place

	// WriteBlocks writes the buffers, which are a verified piece, one after the other, starting at off. They may span files.
	// WriteAt is for blocks that are not verified yet: they do not get into a file that may belong to another program. It returns
	// ErrChanged if a file became such a one while the piece was under way. The piece is lost then, and Refresh has to be called.
	// So do WriteBlocks and PieceVerified, if such a file is not wanted.
	WriteBlocks(blocks [][]byte, off int64) error

	// PieceVerified is called for each verified piece once it is written, and for pieces that were found, before they are
	// counted.
	PieceVerified(piece int) error

	// SetWanted sets which files are wanted, by index in the layout. It is called before the first write, and whenever the
	// choice changes. Bytes of a wanted file that were kept in the edges are copied into it. Files that are no longer wanted
	// stay.
	SetWanted(wanted []bool) error

	// Settle is called with all verified pieces, first when the content that exists has been hashed, and then after each
	// SetWanted. Nothing may be written before the first call. Settle makes the wanted files that are empty. A file that was
	// found under another name is used if a piece in it is verified, and otherwise left alone. The end of ctx ends Settle between
	// files.
	Settle(ctx context.Context, have bits.Set) error

	// Stop makes the calls in progress, except reads, end with ErrClosed after their current step, and later ones end at once. It
	// does not wait for them. Close follows.
	Stop()

	// LoadResume returns the claims of the last run that still hold, judged by the size and modification time of the files: the
	// pieces that were verified, and the blocks of other pieces that were written. A Store that does not keep padding adds the
	// pieces that are padding alone and match. Pieces in Present() that are not in have are worth hashing; partial counts only
	// for those that do not match.
	LoadResume() (have bits.Set, partial map[int]bits.Set)

	// Present returns the pieces that are worth hashing, because all of their bytes may exist. The end of ctx ends it with fewer.
	Present(ctx context.Context) bits.Set

	// SaveResume syncs, and then records have and partial for the next run. Both must have been taken before
	// the call. It does nothing if nothing was ever written, or if have is full and all of it in its files. If the disk is full, or
	// read-only by now, what was recorded before stays, and that is no error: the next run hashes the rest.
	SaveResume(have bits.Set, partial map[int]bits.Set) error

	// Finish is called when everything that is wanted is verified. Wanted files are truncated that were too long when this
	// download wrote to them. What was kept only for the next run is removed, unless it holds bytes of files that are not wanted yet.
	Finish() error

	// Keep is Finish, except that it leaves a sidecar with have and partial, so that the next run need not hash anything. It may
	// also be called at the end of a run that is not complete: it truncates only files all of whose pieces are in have. If the
	// directory is read-only, it leaves everything as it is.
	Keep(have bits.Set, partial map[int]bits.Set) error

	// Changed returns ErrChanged if a file that holds a part of piece is not as it was left, and ErrUnexamined if it cannot tell.
	// ChangedAt is the same for n bytes of a piece: a piece may have a million files. It is called before they are served. ChangedFile
	// is the same for one file, by index.
	Changed(piece int) error
	ChangedAt(off, n int64) error
	ChangedFile(file int) error

	// AnyChanged returns a piece of have for which Changed returns an error, and that error; or -1 and nil. It examines each file
	// once. It is called before the content is reported complete. If what was written is not on the disk, because that was full for
	// example, and only close tells of it, AnyChanged returns -1 and that error. So it does at the end of ctx.
	AnyChanged(ctx context.Context, have bits.Set) (piece int, err error)

	// Refresh returns the pieces that must be hashed again: piece, and all pieces of those of its files that are not as they were
	// left. Until then no claim about them holds. If all pieces of such a file are in doubted, Refresh accepts the file as it is
	// now, and Changed no longer returns an error for it.
	Refresh(piece int, doubted bits.Set) (bits.Set, error)

	// Release is called when nothing more will be written. Another Store may then write the same content.
	Release() error

	// Move moves the content, with the sidecar and the edges, to another directory. It returns when all of it is there, or an
	// error with everything as it was. Reads and writes continue meanwhile. claims is called more than once, and returns the
	// arguments for SaveResume. progress is called with the bytes copied so far and all bytes to copy. Move returns
	// errors.ErrUnsupported for a Store without a directory.
	Move(ctx context.Context, dir string, claims func() (bits.Set, map[int]bits.Set), progress func(done, total int64)) error

	// Rest is Close, except that Wake makes the content readable again. Content in memory stays readable.
	Rest() error

	// Wake ends a Rest. The content of a User stays unreadable.
	Wake() error

	// Bytes returns the whole of file i, which must be as it was left, as the store's own memory, a read-only map or a copy. The
	// slice is valid until release is called.
	Bytes(i int) (b []byte, release func() error, err error)

	// Copies returns how often the store has put a copy in the place of file i. A slice that Bytes returned before that may be of a file
	// that is another program's now. Copies waits for no disk.
	Copies(i int) int
}

// Unwritten reports whether a read failed only because the bytes do not exist.
func Unwritten(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, fs.ErrNotExist)
}

// readFull reads len(p) bytes at off. If r ends before that, the error is io.ErrUnexpectedEOF.
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
