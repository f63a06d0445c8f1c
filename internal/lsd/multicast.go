package lsd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// ListenMulticast opens a socket that hears what is sent to a group in the local network, over the
// interface that the system chooses. Other programs may listen at the same port, and hear what we say.
func ListenMulticast(network string, group netip.AddrPort) (net.PacketConn, error) {
	conn, err := net.ListenMulticastUDP(network, nil, net.UDPAddrFromAddrPort(group))
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		var failed error
		err = raw.Control(func(fd uintptr) { failed = setMulticastLoop(fd, group.Addr().Is6()) })
		err = errors.Join(err, failed)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("multicast to this machine: %w", err)
	}
	return conn, nil
}
