package sockets

import (
	"errors"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// bindToDevice makes a socket send and receive on one interface only. Kernels before 5.7 permit this only to root, and some
// sandboxes do not permit it at all. There the socket is bound to the address only.
func bindToDevice(fd uintptr, device *net.Interface, _ bool) error {
	err := unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, device.Name)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOPROTOOPT) {
		return nil
	}
	return os.NewSyscallError("SO_BINDTODEVICE", err)
}
