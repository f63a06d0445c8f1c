package udpmux

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	maxPacket    = 1 << 16
	kernelBuffer = 4 << 20 // asked of the kernel, which gives what it allows

	longestWrite = 3 * time.Second // of a packet; those that send hold locks meanwhile
)

// newSocket is the fastest way to use conn.
func newSocket(conn net.PacketConn, noOffload bool) socket {
	udp, ok := conn.(*net.UDPConn)
	if !ok {
		return &plainSocket{conn: conn, buf: make([]byte, maxPacket)}
	}
	for size := kernelBuffer; size >= 1<<18 && udp.SetReadBuffer(size) != nil; size /= 2 {
	}
	for size := kernelBuffer; size >= 1<<18 && udp.SetWriteBuffer(size) != nil; size /= 2 {
	}
	return newSystemSocket(udp, noOffload)
}

// plainSocket is any net.PacketConn. A write may wait in it. If it waits for too long the connection is closed, which ends the write.
type plainSocket struct {
	conn    net.PacketConn
	buf     []byte
	closing sync.Once
}

func (s *plainSocket) read(deliver func([]byte, int, netip.AddrPort)) error {
	n, from, err := s.conn.ReadFrom(s.buf)
	if err == nil {
		deliver(s.buf[:n], 0, addrPort(from))
	}
	return err
}

func (s *plainSocket) send(p []byte, segment int, to netip.AddrPort) (int, error) {
	addr := net.UDPAddrFromAddrPort(to)
	late := time.AfterFunc(longestWrite, func() { s.close() })
	defer late.Stop()
	return eachSegment(p, segment, func(p []byte) error {
		late.Reset(longestWrite)
		_, err := s.conn.WriteTo(p, addr)
		return err
	})
}

func (s *plainSocket) probe([]byte, netip.AddrPort) error { return errors.ErrUnsupported }
func (s *plainSocket) localAddr() net.Addr                { return s.conn.LocalAddr() }

// close closes the connection once. If another goroutine does so already, it waits for that.
func (s *plainSocket) close() (err error) {
	s.closing.Do(func() { err = s.conn.Close() })
	return err
}

// udpSocket is a UDP socket of the system's, used through what the standard library offers everywhere.
type udpSocket struct {
	conn *net.UDPConn
	buf  []byte
}

func newUDPSocket(conn *net.UDPConn) *udpSocket {
	return &udpSocket{conn: conn, buf: make([]byte, maxPacket)}
}

func (s *udpSocket) read(deliver func([]byte, int, netip.AddrPort)) error {
	n, from, err := s.conn.ReadFromUDPAddrPort(s.buf)
	if err == nil {
		deliver(s.buf[:n], 0, unmap(from))
	}
	return err
}

func (s *udpSocket) send(p []byte, segment int, to netip.AddrPort) (int, error) {
	return eachSegment(p, segment, func(p []byte) error {
		_, err := s.conn.WriteToUDPAddrPort(p, to)
		return err
	})
}

func (s *udpSocket) probe([]byte, netip.AddrPort) error { return errors.ErrUnsupported }
func (s *udpSocket) localAddr() net.Addr                { return s.conn.LocalAddr() }
func (s *udpSocket) close() error                       { return s.conn.Close() }

// eachSegment sends the packets that p is made of one by one.
func eachSegment(p []byte, segment int, send func([]byte) error) (n int, err error) {
	if segment <= 0 {
		segment = len(p)
	}
	for {
		end := min(n+segment, len(p))
		if err := send(p[n:end]); err != nil {
			return n, err
		}
		if n = end; n == len(p) {
			return n, nil
		}
	}
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func addrPort(a net.Addr) (addr netip.AddrPort) {
	if u, ok := a.(*net.UDPAddr); ok {
		addr = u.AddrPort()
	} else if a != nil {
		addr, _ = netip.ParseAddrPort(a.String())
	}
	return unmap(addr)
}
