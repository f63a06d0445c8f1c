package torrent

import "io"

// Storage is where the content of one torrent lives. Offsets count through the whole torrent in
// torrent order, padding files included, so the content is one run of bytes; a call may span files.
// ReadAt and WriteAt are called from many goroutines at once, never for overlapping writes.
//
// ReadAt returns io.EOF, io.ErrUnexpectedEOF or fs.ErrNotExist where bytes were never written; other errors, and all errors of
// the other methods, end the download.
type Storage interface {
	io.ReaderAt
	io.WriterAt
	// Sync returns once all that was written will survive a loss of power.
	Sync() error
	// Close releases what the storage holds. Nothing is called after it.
	Close() error
}
