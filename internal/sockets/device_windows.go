package sockets

import (
	"encoding/binary"
	"net"
	"os"

	"golang.org/x/sys/windows"
)

const unicastIF = 31 // IP_UNICAST_IF and IPV6_UNICAST_IF

// bindToDevice makes a socket send on one interface only.
func bindToDevice(fd uintptr, device *net.Interface, six bool) error {
	if six {
		return os.NewSyscallError("IPV6_UNICAST_IF", windows.SetsockoptInt(windows.Handle(fd), windows.IPPROTO_IPV6, unicastIF, device.Index))
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(device.Index)) // network byte order, for IPv4 only
	return os.NewSyscallError("IP_UNICAST_IF", windows.SetsockoptInt(windows.Handle(fd), windows.IPPROTO_IP, unicastIF, int(int32(binary.NativeEndian.Uint32(b[:])))))
}
