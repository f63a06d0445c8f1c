package storage

import (
	"errors"
	"io/fs"
	"unsafe"

	"golang.org/x/sys/windows"
)

func (f *rootFile) Mmap(n int) ([]byte, func() error, error) {
	size := uint64(n)
	mapping, err := windows.CreateFileMapping(windows.Handle(f.Fd()), nil, windows.PAGE_READONLY, uint32(size>>32), uint32(size), nil)
	if err != nil {
		return nil, nil, &fs.PathError{Op: "map", Path: f.Name(), Err: err}
	}
	addr, err := windows.MapViewOfFile(mapping, windows.FILE_MAP_READ, 0, 0, uintptr(n))
	// The view keeps the mapping alive.
	closed := windows.CloseHandle(mapping)
	if err != nil {
		return nil, nil, &fs.PathError{Op: "map", Path: f.Name(), Err: errors.Join(err, closed)}
	}
	// The conversion goes through a pointer to addr, because vet cannot know that addr is not an address in the Go heap.
	b := unsafe.Slice(*(**byte)(unsafe.Pointer(&addr)), n)
	return b, func() error { return windows.UnmapViewOfFile(addr) }, nil
}
