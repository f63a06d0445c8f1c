package storage

import (
	"io/fs"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxVectors is how many buffers the kernel accepts in one call (UIO_MAXIOV).
const maxVectors = 1024

// maxWrite is how many bytes are written in one call, unless one buffer is longer. For larger writes the page cache allocates
// larger folios, which the kernel's lists of recently used memory do not hold. Other free memory has not been used for long: if
// a hypervisor has reclaimed it, the write waits until each page is provided again. Writing 1 MiB at a time then takes eight
// times as long as this.
const maxWrite = 32 << 10

// vectors holds the buffers of one writev. It is reused, so that writing allocates nothing.
type vectors struct{ iov []unix.Iovec }

func (f *rootFile) Writev(bufs [][]byte, off int64) error {
	for len(bufs) > 0 {
		f.iov = f.iov[:0]
		size := 0
		for len(bufs) > 0 && len(f.iov) < maxVectors && (size == 0 || size+len(bufs[0]) <= maxWrite) {
			if b := bufs[0]; len(b) > 0 {
				v := unix.Iovec{Base: &b[0]}
				v.SetLen(len(b))
				f.iov = append(f.iov, v)
				size += len(b)
			}
			bufs = bufs[1:]
		}
		n, errno := f.pwritev(f.iov, off)
		clear(f.iov) // keeps no buffer alive
		if errno != 0 {
			return &fs.PathError{Op: "write", Path: f.Name(), Err: errno}
		}
		off += n
	}
	return nil
}

// pwritev writes all of iov, in as many calls as the kernel needs, and returns how many bytes it wrote.
func (f *rootFile) pwritev(iov []unix.Iovec, off int64) (total int64, errno syscall.Errno) {
	for len(iov) > 0 {
		// Not unix.Pwritev, which allocates a slice of vectors at each call. The kernel joins the two halves of the offset. The
		// shift is in two steps, because where a word has 64 bits the whole offset is in lo and hi must be zero.
		lo, hi := uintptr(off), uintptr(uint64(off)>>16>>(8*unsafe.Sizeof(uintptr(0))-16))
		r, _, errno := unix.Syscall6(unix.SYS_PWRITEV, f.Fd(), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)), lo, hi, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno == 0 && r == 0 {
			errno = syscall.EIO // no file system should return that; it would make this loop endless
		}
		if errno != 0 {
			return total, errno
		}
		n := int64(r)
		off, total = off+n, total+n
		for len(iov) > 0 && n >= int64(iov[0].Len) {
			n -= int64(iov[0].Len)
			iov = iov[1:]
		}
		if n > 0 {
			iov[0].Base = (*byte)(unsafe.Add(unsafe.Pointer(iov[0].Base), n))
			iov[0].SetLen(int(iov[0].Len) - int(n))
		}
	}
	return total, 0
}

// SyncAll syncs the whole file system, which is far less work than to sync thousands of files one by one. It does that only where
// syncfs is known to reach the disk.
func (d *rootDisk) SyncAll() (bool, error) {
	if !d.hold() {
		return true, fs.ErrClosed
	}
	defer d.give()
	var st unix.Statfs_t
	if err := ignoringEINTR(func() error { return unix.Fstatfs(int(d.self.Fd()), &st) }); err != nil || !reachesDisk(int64(st.Type)) {
		return false, nil
	}
	if err := unix.Syncfs(int(d.self.Fd())); err != nil {
		return true, &fs.PathError{Op: "sync", Path: d.root.Name(), Err: err}
	}
	return true, nil
}

// reachesDisk reports whether syncfs has a file system of this type put everything on its disk. With others it may do less: a FUSE
// server is not even told of it, CIFS does not have its server flush what was written, and eCryptfs leaves that in the cache of the file
// system below.
func reachesDisk(fsType int64) bool {
	switch uint32(fsType) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.OVERLAYFS_SUPER_MAGIC,
		unix.TMPFS_MAGIC, zfsMagic, bcachefsMagic:
		return true
	}
	return false
}

// The types of file systems for which the package unix has no constants.
const (
	zfsMagic      = 0x2fc12fc1
	bcachefsMagic = 0xca451a4e
)
