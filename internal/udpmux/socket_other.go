//go:build !linux

package udpmux

import "net"

func newSystemSocket(conn *net.UDPConn, _ bool) socket { return newUDPSocket(conn) }
