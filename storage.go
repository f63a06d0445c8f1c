package torrent

import (
	"errors"
	"io"
	"io/fs"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
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

// content is what storage needs to know of a torrent.
type content struct {
	layout.Layout
	Name     string       // for errors
	InfoHash Hash         // names what lies beside the files
	NewCheck func() check // returns one for a goroutine of its own
}

// check compares pieces with what the torrent says of them. The bytes of a piece are written to it in
// order; then it knows which piece they are.
type check interface {
	io.Writer
	// Matches reports whether all that was written since the last Reset is piece i.
	Matches(i int) bool
	// Reset begins another piece.
	Reset()
}

// contents is a Storage and what a download asks of it beyond that. Memory and files implement it;
// a user's Storage is wrapped. All methods may be called from any goroutine.
type contents interface {
	Storage

	// writeBlocks writes consecutive buffers as one run that starts at off, and may span files.
	writeBlocks(blocks [][]byte, off int64) error

	// setWanted says which of the layout are wanted: at the start, before the first write, and
	// whenever the choice changes. Directories and empty files are made, and bytes that were kept
	// aside for a file that was not wanted are moved into it. What was wanted before stays.
	setWanted(wanted []bool) error

	// loadResume is what the last run claimed and what is still so by size and modification time:
	// the pieces that were verified, and of others the blocks that were written. The pieces in
	// present() that are not in have are worth hashing; only those that fail are as partial says.
	loadResume() (have bits.Set, partial map[int]bits.Set)

	// present is the pieces whose bytes could all be there, and so are worth hashing.
	present() bits.Set

	// saveResume records have and partial for the next run, after a Sync: both must have been taken
	// before the call. It does nothing when have is full or nothing was ever written.
	saveResume(have bits.Set, partial map[int]bits.Set) error

	// finished is called when all that is wanted is verified. Files that were too long are cut, and
	// what was only there for the next run goes, unless it holds bytes of files not wanted yet.
	finished() error

	// changed is nil, or why the files under a piece are not as they were left here: asked before a
	// piece is served. changedFile is the same for one file, by index.
	changed(piece int) error
	changedFile(file int) error

	// anyChanged is the first piece of have for which changed is not nil, and what that is; -1 if there
	// is none. It looks at each file once: asked before the content is handed over as complete.
	anyChanged(have bits.Set) (piece int, err error)

	// renew takes the files under piece as they are now, and returns the pieces that this puts in
	// doubt: neither have nor partial holds for them until they are hashed anew.
	renew(piece int) (bits.Set, error)

	// file is the whole of a file, unchanged since it was verified, as a slice of memory, a read-only
	// map or a copy, good until release is called.
	file(i int) (b []byte, release func() error, err error)
}

// unwritten tells whether a read failed only because the bytes are not there.
func unwritten(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, fs.ErrNotExist)
}
