//go:build unix

package lsd

import "syscall"

// setMulticastLoop has what is sent to a group heard on this machine as well, which the net package forbids.
func setMulticastLoop(fd uintptr, six bool) error {
	if six {
		return syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_MULTICAST_LOOP, 1)
	}
	return syscall.SetsockoptByte(int(fd), syscall.IPPROTO_IP, syscall.IP_MULTICAST_LOOP, 1) // an int is refused by some
}

// setMulticastFrom has multicasts leave from an address of this machine.
func setMulticastFrom(fd uintptr, from [4]byte) error {
	return syscall.SetsockoptInet4Addr(int(fd), syscall.IPPROTO_IP, syscall.IP_MULTICAST_IF, from)
}
