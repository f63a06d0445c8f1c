//go:build !unix && !windows

package lsd

// setMulticastLoop leaves it to the system whether what is sent to a group is heard on this machine.
func setMulticastLoop(uintptr, bool) error { return nil }

// setMulticastFrom leaves the address to the system.
func setMulticastFrom(uintptr, [4]byte) error { return nil }
