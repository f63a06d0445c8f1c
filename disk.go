package torrent

import (
	"io"
)

// disk is one directory of a file system, and all that file storage asks of the operating system. In
// earnest it is an os.Root, so that nothing outside the directory is ever opened; tests put one
// behind it that fails, or that forgets what was not synced. Names are relative to the directory and
// in the system's own form.
type disk interface {
	open(name string, flag int) (diskFile, error)
	mkdirAll(name string) error
	// stat follows no rule of containment: what it tells is compared, and not acted upon.
	stat(name string) (fileInfo, error)
	rename(from, to string) error
	remove(name string) error
	// syncDir makes the entries of a directory survive a loss of power.
	syncDir(name string) error
	// syncAll is a Sync of everything that was written under the directory, if there is a way to do
	// that which is cheaper than file by file.
	syncAll() (done bool, err error)
	// lock takes a lock that ends with the process at the latest: ErrInUse if another has it. A lock
	// that is not exclusive is had together with others such, and is fs.ErrNotExist where no one ever
	// made the file. unlock removes the file if told to.
	lock(name string, exclusive bool) (unlock func(remove bool) error, err error)
	close() error
}

// diskFile is an open file of a disk. Its methods may be called at once, but for writev.
type diskFile interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// writev writes consecutive buffers.
	writev(bufs [][]byte, off int64) error
	stat() (fileInfo, error)
	// nextData is the next run of bytes at or after off that is not a hole. start is the file's size
	// if there is none.
	nextData(off, size int64) (start, end int64, err error)
	// mmap maps the first n bytes, which must be there, read-only. n is not zero.
	mmap(n int) (b []byte, release func() error, err error)
	Truncate(size int64) error
	Sync() error
}

// stamp tells whether a file is still as it was left. The zero stamp is of a file that is not there.
type stamp struct {
	size  int64
	mtime int64 // nanoseconds
	dev   uint64
	inode uint64 // with dev, zero where the system does not tell
}

type fileInfo struct {
	stamp
	regular bool
	gone    bool // no name leads to it any more
	dense   bool // certain to have no holes
}
