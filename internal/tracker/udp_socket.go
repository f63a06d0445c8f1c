package tracker

import (
	"errors"
	"net"
	"net/netip"
	"sync"

	"github.com/shoal-go/torrent/internal/netaddr"
)

// sockets are what datagrams go through: one for each family of addresses, opened when it is first needed.
// They know nothing of trackers, so that a socket shared with other protocols can take their place.
type sockets struct {
	listen  func(network string) (net.PacketConn, error)
	receive func(p []byte, from netip.AddrPort) // must not wait; p is good until it returns

	reading sync.WaitGroup

	mu     sync.Mutex
	closed bool
	open   [netaddr.Families]net.PacketConn
}

// close closes the sockets for good, and returns when nothing is received any more.
func (s *sockets) close() {
	s.mu.Lock()
	s.closed = true
	for _, c := range s.open {
		if c != nil {
			c.Close()
		}
	}
	s.mu.Unlock()
	s.reading.Wait()
}

// send writes through the socket of addr's family. The error is a *net.OpError or net.ErrClosed.
func (s *sockets) send(addr netip.AddrPort, p []byte) error {
	c, err := s.get(netaddr.FamilyOf(addr.Addr()))
	if err == nil {
		_, err = c.WriteTo(p, net.UDPAddrFromAddrPort(addr))
	}
	return err
}

// get returns the socket for a family of addresses, and opens it if there is none.
func (s *sockets) get(f netaddr.Family) (net.PacketConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, net.ErrClosed
	}
	if s.open[f] == nil {
		c, err := s.listen(f.Network("udp"))
		if err != nil {
			return nil, err
		}
		s.open[f] = c
		s.reading.Go(func() { s.read(f, c) })
	}
	return s.open[f], nil
}

// read hands on what comes through c until it is closed, or broken, in which case the next send opens
// another.
func (s *sockets) read(f netaddr.Family, c net.PacketConn) {
	defer c.Close()
	p := make([]byte, 1<<16)
	// Some systems report here that an earlier datagram could not be delivered.
	for failures := 0; failures < 100; {
		n, from, err := c.ReadFrom(p)
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil {
			failures++
			continue
		}
		failures = 0
		s.receive(p[:n], netaddr.Of(from))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[f] = nil
}
