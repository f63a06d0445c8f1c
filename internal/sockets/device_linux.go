package sockets

import (
	"errors"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// bindToDevice has a socket send and receive by one interface alone. Kernels before 5.7 let only root do so, and some
// sandboxes do not let root; there the address alone has to do.
func bindToDevice(fd uintptr, device *net.Interface, _ bool) error {
	err := unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, device.Name)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOPROTOOPT) {
		return nil
	}
	return os.NewSyscallError("SO_BINDTODEVICE", err)
}
