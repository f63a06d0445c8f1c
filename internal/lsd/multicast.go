package lsd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// ListenMulticast opens a socket that hears what is sent to a group in the local network, over an interface and from one of
// its addresses, or those that the system chooses if they are zero. Other programs may listen at the same port, and hear
// what we say. What is sent to this machine alone is not heard, except on Windows.
func ListenMulticast(network string, group netip.AddrPort, device *net.Interface, from netip.Addr) (net.PacketConn, error) {
	conn, err := net.ListenMulticastUDP(network, device, net.UDPAddrFromAddrPort(group))
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		var failed error
		err = raw.Control(func(fd uintptr) {
			if failed = setMulticastLoop(fd, group.Addr().Is6()); failed == nil && from.Is4() {
				failed = setMulticastFrom(fd, from.As4())
			}
		})
		err = errors.Join(err, failed)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("multicast to this machine: %w", err)
	}
	return groupOnly(conn, group.Addr().Is6()), nil
}
