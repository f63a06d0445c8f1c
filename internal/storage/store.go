// Package storage keeps the content of one torrent: in memory, in files under a directory, or in a storage of
// the user's own. It verifies what is there, remembers across runs what was verified, and notices what other
// programs change. Everything that it asks of the operating system goes through a Disk.
//
// A Store belongs to one download, which closes it. All of its methods may be called from any goroutine.
package storage

import (
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
	// ErrChanged is in what Changed returns where the file itself, and not the asking, is the reason.
	ErrChanged = errors.New("changed by another program")
)

// Content is what a Store needs to know of a torrent.
type Content struct {
	layout.Layout
	Name     string       // for errors
	InfoHash [20]byte     // names what lies beside the files
	NewCheck func() Check // returns one for a goroutine of its own
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

	// SetWanted says which files are wanted, by their index in the layout: at the start, before the first write, and
	// whenever the choice changes. Directories and empty files are made, and bytes that were kept
	// aside for a file that was not wanted are moved into it. What was wanted before stays.
	SetWanted(wanted []bool) error

	// LoadResume is what the last run claimed and what is still so by size and modification time:
	// the pieces that were verified, and of others the blocks that were written. The pieces in
	// Present() that are not in have are worth hashing; only those that fail are as partial says.
	LoadResume() (have bits.Set, partial map[int]bits.Set)

	// Present is the pieces whose bytes could all be there, and so are worth hashing.
	Present() bits.Set

	// SaveResume records have and partial for the next run, after a Sync: both must have been taken
	// before the call. It does nothing when have is full or nothing was ever written.
	SaveResume(have bits.Set, partial map[int]bits.Set) error

	// Finish is called when all that is wanted is verified. Files that were too long are cut, and
	// what was only there for the next run goes, unless it holds bytes of files not wanted yet.
	Finish() error

	// Changed is nil, or why the files under a piece are not as they were left here: asked before a
	// piece is served. ChangedFile is the same for one file, by index.
	Changed(piece int) error
	ChangedFile(file int) error

	// AnyChanged is the first piece of have for which Changed is not nil, and what that is; -1 if there
	// is none. It looks at each file once: asked before the content is handed over as complete.
	AnyChanged(have bits.Set) (piece int, err error)

	// Refresh takes the files under piece as they are now, and returns the pieces that this puts in
	// doubt: neither have nor partial holds for them until they are hashed again.
	Refresh(piece int) (bits.Set, error)

	// Bytes is the whole of file i, unchanged since it was verified, as a slice of memory, a read-only
	// map or a copy, good until release is called.
	Bytes(i int) (b []byte, release func() error, err error)
}

// Unwritten reports whether a read failed only because the bytes are not there.
func Unwritten(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, fs.ErrNotExist)
}

// readFull reads all of p; what ends before that is io.ErrUnexpectedEOF.
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

// checkRead refuses a read that cannot give a single byte.
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

// checkWrite refuses a write that is not wholly within the content.
func checkWrite(c *Content, closed bool, off, n int64) error {
	switch {
	case closed:
		return ErrClosed
	case off < 0 || n > c.Size()-off:
		return fmt.Errorf("write of %d bytes at %d: outside the %d bytes of content", n, off, c.Size())
	}
	return nil
}
