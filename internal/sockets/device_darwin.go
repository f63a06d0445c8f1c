package sockets

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// bindToDevice makes a socket send on one interface only.
func bindToDevice(fd uintptr, device *net.Interface, six bool) error {
	if six {
		return os.NewSyscallError("IPV6_BOUND_IF", unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_BOUND_IF, device.Index))
	}
	return os.NewSyscallError("IP_BOUND_IF", unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BOUND_IF, device.Index))
}
