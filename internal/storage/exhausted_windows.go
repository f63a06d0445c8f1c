package storage

import (
	"errors"
	"math"
	"syscall"

	"golang.org/x/sys/windows"
)

// Exhausted reports whether err means that the process or the system has run out of handles, or of memory for a socket. Such an
// error is temporary: it passes when some are released.
func Exhausted(err error) bool {
	for _, e := range [...]error{windows.ERROR_TOO_MANY_OPEN_FILES, windows.WSAEMFILE, windows.WSAENOBUFS} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// isFull reports whether err means that a disk has no room, or a quota is used up.
func isFull(err error) bool {
	for _, e := range [...]error{windows.ERROR_DISK_FULL, windows.ERROR_HANDLE_DISK_FULL, windows.ERROR_DISK_QUOTA_EXCEEDED, syscall.ENOSPC} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// maxOpen is how many handles the process may have. On this system that is not known.
func maxOpen() int { return math.MaxInt }
