package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
)

const (
	associateTimeout = 15 * time.Second
	maxPacket        = 1<<16 - 1
)

// An association is a UDP socket whose packets a SOCKS proxy relays (RFC 1928, 7). It lasts as long as the TCP
// connection on which it was requested.
type association struct {
	net.PacketConn                // to the relay
	control        net.Conn       // the TCP connection
	relay          netip.AddrPort // of the proxy; packets go to and come from this address only

	reading sync.Mutex
	in      []byte // guarded by reading
	writing sync.Mutex
	out     []byte // guarded by writing

	once  sync.Once
	ended chan struct{} // closed when the association has ended
	err   error         // why it has ended; written before ended is closed
}

// associate requests a UDP association from the proxy and opens its socket.
func (p *Proxy) associate(ctx context.Context) (*association, error) {
	if p.scheme != "socks5" {
		return nil, errNoUDP
	}
	ctx, cancel := context.WithTimeout(ctx, associateTimeout)
	defer cancel()
	control, err := p.dial(ctx, "tcp", p.addr)
	if err != nil {
		return nil, err
	}
	a := &association{control: control, ended: make(chan struct{}), in: make([]byte, maxPacket)}
	if err := a.open(ctx, p); err != nil {
		control.Close()
		return nil, err
	}
	go a.watch()
	return a, nil
}

func (a *association) open(ctx context.Context, p *Proxy) error {
	var bound target
	err := handshake(ctx, a.control, func() (err error) {
		// Behind a router we do not know which address our packets will come from. Zeros say so (RFC 1928, 7).
		bound, err = requestSOCKS(a.control, p.user, socksAssociate, target{ip: netip.IPv4Unspecified()})
		return err
	})
	if reply := socksReply(0); errors.As(err, &reply) && (reply == replyUnsupported || reply == replyNotAllowed) {
		return fmt.Errorf("%w: %w", errNoUDP, err)
	}
	if err != nil {
		return err
	}
	a.relay, err = relayOf(bound, netaddr.Of(a.control.RemoteAddr()).Addr())
	if err != nil {
		return err
	}
	network, local := netaddr.FamilyOf(a.relay.Addr()).Network("udp"), netip.IPv4Unspecified()
	if a.relay.Addr().Is6() {
		local = netip.IPv6Unspecified()
	}
	a.PacketConn, err = p.listen(ctx, network, netip.AddrPortFrom(local, 0).String())
	return err
}

// relayOf returns the address to send packets to. bound is the address in the reply of the proxy, proxy the address of
// the proxy itself. A proxy that is behind a router, or listens on all addresses, may reply with an address that is of no
// use here. relayOf returns the address of the proxy then, and also if a proxy on the Internet replies with an address
// inside our network.
func relayOf(bound target, proxy netip.Addr) (netip.AddrPort, error) {
	ip := bound.ip
	if !ip.IsValid() || ip.IsUnspecified() || ip.IsMulticast() || netaddr.IsLocal(ip) != netaddr.IsLocal(proxy) || ip.IsLoopback() != proxy.IsLoopback() {
		ip = proxy
	}
	if !ip.IsValid() || bound.port == 0 {
		return netip.AddrPort{}, fmt.Errorf("answer without a relay address: %s", bound)
	}
	return netip.AddrPortFrom(ip, bound.port), nil
}

// watch ends the association when its TCP connection ends. A proxy sends nothing on that connection.
func (a *association) watch() {
	var b [1]byte
	_, err := a.control.Read(b[:])
	if err == nil {
		err = errors.New("unexpected data on its TCP connection")
	}
	a.end(fmt.Errorf("the proxy ended the UDP association: %w (%w)", net.ErrClosed, err))
}

// end closes the socket and the TCP connection, and records why.
func (a *association) end(why error) (err error) {
	a.once.Do(func() {
		a.err = why
		close(a.ended)
		a.control.Close()
		err = a.PacketConn.Close()
	})
	return err
}

// Close ends the association.
func (a *association) Close() error { return a.end(net.ErrClosed) }

// ReadFrom reads a packet that a host sent to the association's port at the proxy. It may be called from several goroutines.
func (a *association) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := a.read(b)
	if err != nil {
		return 0, nil, err
	}
	return n, from.packetAddr(), nil
}

func (a *association) read(b []byte) (int, target, error) {
	a.reading.Lock()
	defer a.reading.Unlock()
	for {
		n, from, err := a.PacketConn.ReadFrom(a.in)
		if err != nil {
			select {
			case <-a.ended:
				err = a.err
			default:
			}
			return 0, target{}, err
		}
		if netaddr.Of(from) != a.relay {
			continue
		}
		if from, data, ok := parseDatagram(a.in[:n]); ok {
			return copy(b, data), from, nil
		}
	}
}

// WriteTo sends a packet to a host through the proxy.
func (a *association) WriteTo(b []byte, to net.Addr) (int, error) {
	if u, ok := to.(*net.UDPAddr); ok && u.Zone == "" {
		if ip, ok := netip.AddrFromSlice(u.IP); ok {
			return a.write(b, target{ip: ip.Unmap(), port: uint16(u.Port)})
		}
	}
	t, err := parseTarget(to.String())
	if err != nil {
		return 0, fmt.Errorf("send by proxy: %w", err)
	}
	return a.write(b, t)
}

func (a *association) write(b []byte, to target) (int, error) {
	a.writing.Lock()
	defer a.writing.Unlock()
	a.out = append(appendTarget(append(a.out[:0], 0, 0, 0), to), b...)
	_, err := a.PacketConn.WriteTo(a.out, net.UDPAddrFromAddrPort(a.relay))
	if err != nil {
		select {
		case <-a.ended:
			err = a.err
		default:
		}
		return 0, err
	}
	return len(b), nil
}

// parseDatagram parses a packet from the relay into its sender and its data (RFC 1928, 7). Fragments are refused: support
// for them is optional.
func parseDatagram(b []byte) (from target, data []byte, ok bool) {
	if len(b) < 3 || b[2] != 0 {
		return from, nil, false
	}
	from, data, ok = cutTarget(b[3:])
	return from, data, ok && (from.ip.IsValid() || from.name != "")
}

// packetDialled is an association used for one other host.
type packetDialled struct {
	*association
	to target
}

// Read reads a packet from the host. If the host was given by name, only the proxy knows its address, so Read accepts a
// packet from any host with the same port.
func (c *packetDialled) Read(b []byte) (int, error) {
	for {
		n, from, err := c.read(b)
		if err != nil || from == c.to || from.port == c.to.port && !c.to.ip.IsValid() {
			return n, err
		}
	}
}

func (c *packetDialled) Write(b []byte) (int, error) { return c.write(b, c.to) }
func (c *packetDialled) RemoteAddr() net.Addr        { return c.to.packetAddr() }
