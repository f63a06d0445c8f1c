package lsd

import (
	"net"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// A groupConn hears only what is sent to a group. The socket itself is bound to all addresses of the machine, so that anyone who
// reaches it could speak as if in the local network.
type groupConn struct {
	net.PacketConn
	read func(b []byte) (n int, to net.IP, from net.Addr, err error) // to is nil if it is unknown
}

func (c groupConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, to, from, err := c.read(b)
		if err != nil || to == nil || to.IsMulticast() {
			return n, from, err
		}
	}
}

// groupOnly returns a connection that hears only what conn hears of a group, where the system says what a packet was sent to.
// Windows does not.
func groupOnly(conn *net.UDPConn, six bool) net.PacketConn {
	if six {
		p := ipv6.NewPacketConn(conn)
		if p.SetControlMessage(ipv6.FlagDst, true) != nil {
			return conn
		}
		return groupConn{conn, reading(p.ReadFrom, func(m *ipv6.ControlMessage) net.IP { return m.Dst })}
	}
	p := ipv4.NewPacketConn(conn)
	if p.SetControlMessage(ipv4.FlagDst, true) != nil {
		return conn
	}
	return groupConn{conn, reading(p.ReadFrom, func(m *ipv4.ControlMessage) net.IP { return m.Dst })}
}

// reading returns the read of a groupConn, given that of a socket of one address family, and where its control messages have the
// destination.
func reading[Message any](read func([]byte) (int, *Message, net.Addr, error), dst func(*Message) net.IP) func([]byte) (int, net.IP, net.Addr, error) {
	return func(b []byte) (n int, to net.IP, from net.Addr, err error) {
		n, m, from, err := read(b)
		if m != nil {
			to = dst(m)
		}
		return n, to, from, err
	}
}
