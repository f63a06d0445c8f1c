//go:build unix

package storage

import (
	"errors"
	"math"

	"golang.org/x/sys/unix"
)

// Exhausted reports whether err means that the process or the system has run out of handles, or of memory or ports for a socket.
// Such an error is temporary: it passes when some are released.
func Exhausted(err error) bool {
	for _, e := range [...]error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.EADDRNOTAVAIL} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// isFull reports whether err means that a disk has no room, or a quota is used up.
func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// maxOpen is how many handles the process may have.
func maxOpen() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return math.MaxInt
	}
	return int(min(uint64(limit.Cur), math.MaxInt))
}
