//go:build !linux && !darwin && !windows

package sockets

import "net"

// bindToDevice leaves it to the routes of the system by which interface packets from an address leave.
func bindToDevice(uintptr, *net.Interface, bool) error { return nil }
