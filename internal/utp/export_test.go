package utp

import "net"

// Connections is how many connections packets are looked up among.
func Connections(s *Socket) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// PacketSize is how large packets a connection sends.
func PacketSize(c net.Conn) int {
	k := c.(*conn)
	k.mu.Lock()
	defer k.mu.Unlock()
	return int(k.e.mtu.size)
}

// Unacknowledged is what the connections of a socket hold to be sent, in bytes.
func Unacknowledged(s *Socket) int64 { return s.unacknowledged.held.Load() }

// LimitUnacknowledged sets the bound on it.
func LimitUnacknowledged(s *Socket, n int64) { s.unacknowledged.limit = n }
