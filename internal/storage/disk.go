package storage

import (
	"io"
)

// Disk is one directory of a file system, with all operations that file storage needs from the operating system. Outside tests it
// is an os.Root. Tests use one that fails, or that loses what was not synced: see package disktest. Names are relative to the
// directory and in the system's own form.
type Disk interface {
	// Open opens a regular file. It fails for any other kind of file, and does not block on one, such as a pipe. For reading, it
	// follows symbolic links out of the directory, because the user made them. For writing, it fails on such a link.
	Open(name string, flag int) (DiskFile, error)
	MkdirAll(name string) error
	// Stat follows symbolic links out of the directory as well: its result is only compared.
	Stat(name string) (FileInfo, error)
	// Listed reports whether the directory that holds name lists it in exactly that spelling.
	Listed(name string) (bool, error)
	Rename(from, to string) error
	Remove(name string) error
	// RemoveDir removes an empty directory. It fails for a symbolic link to one, and if the directory is itself open as a Disk of the
	// same Claims, whose files would have no place any more.
	RemoveDir(name string) error
	// Link makes a hard link to a regular file, on the same Disk or another one. It fails where there are no hard links,
	// between file systems, and where the new name exists.
	Link(name string, to Disk, as string) error
	// Symlink makes a symbolic link to target, which is relative to the directory of name. It fails where name exists, and where
	// there are no symbolic links or the process may not make them.
	Symlink(target, name string) error
	// Readlink returns the target of a symbolic link. It fails if name is not one. Like Stat, it follows symbolic links among the
	// directories above name.
	Readlink(name string) (string, error)
	// SetMtime sets the modification time of a file, in nanoseconds.
	SetMtime(name string, mtime int64) error
	// SyncDir syncs the entries of a directory, so that they survive a loss of power.
	SyncDir(name string) error
	// SyncAll syncs everything that was written under the directory, if the system can do that at less cost than file by file.
	// done is false if it cannot.
	SyncAll() (done bool, err error)
	// Lock locks a file, or returns ErrInUse if the file is locked already. The lock ends with the process at the latest. An
	// exclusive Lock makes the file. Locks that are not exclusive may be held several at once, and fail with fs.ErrNotExist if
	// the file does not exist. unlock also removes the file if remove is set.
	Lock(name string, exclusive bool) (unlock func(remove bool) error, err error)
	// Claim keeps other owners from claiming the files until Close, or returns a *Claimed if one of them has claimed one of the
	// files. undo ends those claims that this call added. An owner is an info hash, always the same for one Disk. Claim leaves
	// nothing in the directory. Disks of the same Claims see each other's claims, and on Linux also those of others, in any process:
	// if one call claims many files, these see directories that hold them instead. Claim may be called concurrently.
	Claim(owner [20]byte, files []Claim) (undo func(), err error)
	// Reopen opens the directory at the path of this Disk, if that is another one, or the handle of this one is of no use any more.
	// Otherwise it returns nil.
	Reopen() (Disk, error)
	Close() error
}

// DiskFile is an open file of a Disk. Its methods may be called concurrently, except for Writev.
type DiskFile interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Writev writes all of bufs, one after the other, starting at off.
	Writev(bufs [][]byte, off int64) error
	Stat() (FileInfo, error)
	// NextData returns the first run of bytes at or after off that is not a hole. size is the file's size; start is size if there
	// is no such run.
	NextData(off, size int64) (start, end int64, err error)
	// Mmap maps the first n bytes of the file, which must exist, read-only. n is not zero.
	Mmap(n int) (b []byte, release func() error, err error)
	Truncate(size int64) error
	Sync() error
}

// Stamp is the size and modification time by which a Store recognizes that a file is still as it was left. The zero Stamp stands
// for a file that does not exist. The inode number is not part of it: some file systems invent a new one at each mount, or each
// time that a file is opened.
type Stamp struct {
	Size  int64 // bytes
	Mtime int64 // Unix time in nanoseconds
}

// stampOf returns the Stamp of a file that exists. It is not zero, even for an empty file that was modified at Unix time 0.
func stampOf(size, mtime int64) Stamp {
	if size == 0 && mtime == 0 {
		mtime = 1
	}
	return Stamp{size, mtime}
}

// FileID tells files apart at one moment. It is zero where the system has no such identity.
type FileID struct{ Dev, Inode uint64 }

// FileInfo is what a Disk reports of a file.
type FileInfo struct {
	Stamp
	ID      FileID
	Links   int // number of hard links, at most 1<<16; zero where the system does not report it
	Regular bool
	Gone    bool // no name leads to it any more
	Dense   bool // certain to have no holes
}
