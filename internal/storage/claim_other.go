//go:build !linux

package storage

// Claim does nothing: this system has no lock that leaves no file, ends with the process and knows the members of one.
func (d *rootDisk) Claim([20]byte, []Claim) error { return nil }

type owner struct{}
