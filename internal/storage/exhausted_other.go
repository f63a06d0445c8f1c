//go:build !unix && !windows

package storage

import "math"

// Exhausted reports whether err means that the system has run out of handles. On this system that is not known.
func Exhausted(error) bool { return false }

// isFull reports whether err means that a disk has no room. On this system that is not known.
func isFull(error) bool { return false }

// maxOpen is how many handles the process may have. On this system that is not known.
func maxOpen() int { return math.MaxInt }
