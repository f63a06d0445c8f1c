package lsd

import "syscall"

// setMulticastLoop has what is sent to a group heard on this machine as well, which the net package forbids.
func setMulticastLoop(fd uintptr, six bool) error {
	if six {
		const loop6 = 11 // IPV6_MULTICAST_LOOP
		return syscall.SetsockoptInt(syscall.Handle(fd), syscall.IPPROTO_IPV6, loop6, 1)
	}
	return syscall.SetsockoptInt(syscall.Handle(fd), syscall.IPPROTO_IP, syscall.IP_MULTICAST_LOOP, 1)
}

// setMulticastFrom has multicasts leave from an address of this machine.
func setMulticastFrom(fd uintptr, from [4]byte) error {
	return syscall.SetsockoptInet4Addr(syscall.Handle(fd), syscall.IPPROTO_IP, syscall.IP_MULTICAST_IF, from)
}
