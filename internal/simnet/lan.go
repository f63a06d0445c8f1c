package simnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
)

// LAN carries multicast between those hosts of a network that listen to a group. The zero value is ready.
type LAN struct {
	mu      sync.Mutex
	members map[netip.AddrPort][]net.Addr // by group
	sent    []string
}

// member is a socket that listens to a group.
type member struct {
	net.PacketConn
	lan *LAN
}

// Listener returns how a host listens to a group, of its own family of addresses alone, and sends to it.
func (l *LAN) Listener(h *Host) func(network string, group netip.AddrPort) (net.PacketConn, error) {
	return func(network string, group netip.AddrPort) (net.PacketConn, error) {
		if group.Addr().Is4() != h.IP().Is4() {
			return nil, errors.New("no such family here")
		}
		conn, err := h.ListenPacket(network, fmt.Sprintf(":%d", group.Port()))
		if err != nil {
			return nil, err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.members == nil {
			l.members = map[netip.AddrPort][]net.Addr{}
		}
		l.members[group] = append(l.members[group], conn.LocalAddr())
		return member{conn, l}, nil
	}
}

func (m member) WriteTo(b []byte, to net.Addr) (int, error) {
	m.lan.mu.Lock()
	members := m.lan.members[to.(*net.UDPAddr).AddrPort()]
	m.lan.sent = append(m.lan.sent, string(b))
	m.lan.mu.Unlock()
	for _, member := range members {
		if _, err := m.PacketConn.WriteTo(b, member); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// Take returns what was sent to groups since it was last called.
func (l *LAN) Take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	sent := l.sent
	l.sent = nil
	return sent
}
