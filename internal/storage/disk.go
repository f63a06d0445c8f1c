package storage

import (
	"io"
)

// Disk is one directory of a file system, and all that file storage asks of the operating system. It is an
// os.Root but in tests, which put in its place one that fails, or that forgets what was not synced: see
// package disktest. Names are relative to the directory and in the system's own form.
type Disk interface {
	// Open opens a regular file, and waits for nothing that another kind of file would have it wait for. To read, it
	// follows symbolic links out of the directory: the user made them. To write, it fails there.
	Open(name string, flag int) (DiskFile, error)
	MkdirAll(name string) error
	// Stat follows symbolic links out of the directory, too: what it returns is compared, and never acted upon.
	Stat(name string) (FileInfo, error)
	// Listed reports whether a directory lists a file under just that name.
	Listed(name string) (bool, error)
	Rename(from, to string) error
	// Remove removes a file or an empty directory.
	Remove(name string) error
	// Link gives a regular file another name, on the same Disk or another one. It fails where there are no such links,
	// between file systems, and where the name is taken.
	Link(name string, to Disk, as string) error
	// Symlink makes a symbolic link that leads to target, as seen from the directory of name. It fails where the name is taken, and
	// where there are no such links or we may not make them.
	Symlink(target, name string) error
	// Readlink is where a symbolic link leads. It fails if name is none.
	Readlink(name string) (string, error)
	// SetMtime sets the modification time of a file, in nanoseconds.
	SetMtime(name string, mtime int64) error
	// SyncDir makes the entries of a directory survive a loss of power.
	SyncDir(name string) error
	// SyncAll is a Sync of everything that was written under the directory, if there is a way to do
	// that which is cheaper than file by file.
	SyncAll() (done bool, err error)
	// Lock takes a lock that ends with the process at the latest: ErrInUse if another has it. A lock
	// that is not exclusive may be held by several at once, and is fs.ErrNotExist where the file was never
	// made. unlock removes the file if told to.
	Lock(name string, exclusive bool) (unlock func(remove bool) error, err error)
	// Claim keeps others from the files until Close, or returns a *Claimed if another owner has one of them. It leaves
	// nothing in the directory. Disks of the same directory see each other's claims, in any process.
	Claim(owner [20]byte, files []Claim) error
	Close() error
}

// DiskFile is an open file of a Disk. Its methods may be called at once, but for Writev.
type DiskFile interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Writev writes consecutive buffers.
	Writev(bufs [][]byte, off int64) error
	Stat() (FileInfo, error)
	// NextData is the next run of bytes at or after off that is not a hole. start is the file's size
	// if there is none.
	NextData(off, size int64) (start, end int64, err error)
	// Mmap maps the first n bytes, which must be there, read-only. n is not zero.
	Mmap(n int) (b []byte, release func() error, err error)
	Truncate(size int64) error
	Sync() error
}

// Stamp is what shows whether a file is still as it was left. The zero Stamp is of a file that is not there. The
// number of the inode is no part of it: some file systems invent another one at each mount, or each time
// that a file is opened.
type Stamp struct {
	Size  int64
	Mtime int64 // nanoseconds
}

// FileID tells files apart at one moment. It is zero where the system does not tell.
type FileID struct{ Dev, Inode uint64 }

// FileInfo is what a Disk knows of a file.
type FileInfo struct {
	Stamp
	ID      FileID
	Links   int // names that lead to it, or zero where the system does not tell
	Regular bool
	Gone    bool // no name leads to it any more
	Dense   bool // certain to have no holes
}
