package disktest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"syscall"

	"github.com/shoal-go/torrent/internal/storage"
)

// inode is a file, as programs see it and as the disk has it for certain.
type inode struct {
	disk    *state
	number  uint64
	links   int
	seen    version
	durable version
}

type version struct {
	data  []byte
	mtime int64
}

// page is what is kept or lost as one.
const page = 64 // bytes

// remembered is what is left of the file after a loss of power. The caller holds f.disk.mu.
func (f *inode) remembered(rng *rand.Rand) version {
	v := version{bytes.Clone(f.durable.data), f.durable.mtime}
	if rng.IntN(2) == 0 {
		v.mtime = f.seen.mtime
	}
	if size := len(f.seen.data); rng.IntN(2) == 0 {
		v.data = append(v.data, make([]byte, max(0, size-len(v.data)))...)[:size]
	}
	for off := 0; off < len(v.data); off += page {
		if rng.IntN(2) == 0 && off < len(f.seen.data) {
			copy(v.data[off:min(off+page, len(v.data))], f.seen.data[off:])
		}
	}
	return v
}

// The caller holds f.disk.mu.
func (f *inode) info() storage.FileInfo {
	return storage.FileInfo{
		Stamp: storage.Stamp{Size: int64(len(f.seen.data)), Mtime: f.seen.mtime},
		ID:    storage.FileID{Dev: 1, Inode: f.number}, Links: f.links, Regular: true, Gone: f.links == 0, Dense: true,
	}
}

func (f *inode) Stat() (storage.FileInfo, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	return f.info(), nil
}

func (f *inode) ReadAt(p []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	return bytes.NewReader(f.seen.data).ReadAt(p, off)
}

func (f *inode) WriteAt(p []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.writeError; err != nil {
		return 0, err
	}
	f.disk.clock++
	f.seen.mtime = f.disk.clock
	f.seen.data = append(f.seen.data, make([]byte, max(0, int(off)+len(p)-len(f.seen.data)))...)
	return copy(f.seen.data[off:], p), nil
}

func (f *inode) Truncate(size int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.disk.clock++
	f.seen.mtime = f.disk.clock
	f.seen.data = append(f.seen.data, make([]byte, max(0, int(size)-len(f.seen.data)))...)[:size]
	return nil
}

func (f *inode) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.syncError; err != nil {
		f.seen.data = bytes.Clone(f.durable.data) // and the next sync does not report it
		return err
	}
	f.durable = version{bytes.Clone(f.seen.data), f.seen.mtime}
	return nil
}

// file is an open file.
type file struct {
	*inode
	disk *Disk
	name string
}

func (f *file) fail(call string) error { return f.disk.fail(call, f.name) }

func (f *file) Stat() (storage.FileInfo, error) {
	if err := f.fail("fstat"); err != nil {
		return storage.FileInfo{}, err
	}
	return f.inode.Stat()
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if err := f.fail("read"); err != nil {
		n, _ := f.inode.ReadAt(p[:len(p)/2], off)
		return n, err
	}
	return f.inode.ReadAt(p, off)
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if err := f.fail("write"); errors.Is(err, syscall.ENOTCONN) {
		return 0, err
	} else if err != nil {
		n, _ := f.inode.WriteAt(p[:len(p)/2], off)
		return n, err
	}
	return f.inode.WriteAt(p, off)
}

func (f *file) Writev(bufs [][]byte, off int64) error {
	for _, b := range bufs {
		n, err := f.WriteAt(b, off)
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

func (f *file) NextData(off, size int64) (start, end int64, err error) {
	return off, size, f.fail("look for data in")
}

func (f *file) Mmap(n int) ([]byte, func() error, error) {
	if err := f.fail("map"); err != nil {
		return nil, nil, err
	}
	b := make([]byte, n)
	if got, err := f.inode.ReadAt(b, 0); got < n {
		return nil, nil, err
	}
	f.disk.hold("map of "+f.name, 1)
	return b, func() error {
		f.disk.hold("map of "+f.name, -1)
		return f.fail("unmap")
	}, nil
}

func (f *file) Truncate(size int64) error {
	if err := f.fail("truncate"); err != nil {
		return err
	}
	return f.inode.Truncate(size)
}

func (f *file) Sync() error {
	if err := f.fail("sync"); err != nil {
		return err
	}
	return f.inode.Sync()
}

func (f *file) Close() error {
	f.disk.hold(f.name, -1)
	return f.fail("close")
}
