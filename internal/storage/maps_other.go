//go:build !linux

package storage

// mapsAreMany is about a bound that this system does not have.
func mapsAreMany() bool { return false }
