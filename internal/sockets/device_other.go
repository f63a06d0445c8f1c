//go:build !linux && !darwin && !windows

package sockets

import "net"

// bindToDevice does nothing. The routes of the system choose the interface.
func bindToDevice(uintptr, *net.Interface, bool) error { return nil }
