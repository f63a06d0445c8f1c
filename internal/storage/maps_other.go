//go:build !linux

package storage

// mapsAreMany returns false: this system has no bound on the maps of a process.
func mapsAreMany() bool { return false }
