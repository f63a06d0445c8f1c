package torrent

import (
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"

	"github.com/shoal-go/torrent/internal/dht"
	"github.com/shoal-go/torrent/internal/sockets"
	"github.com/shoal-go/torrent/internal/tracker"
	"github.com/shoal-go/torrent/internal/udpmux"
	"github.com/shoal-go/torrent/internal/utp"
)

// dhtVersion is what other nodes are told that we are (BEP 5, v).
const dhtVersion = "SL\x01\x00"

var errNoDHT = fmt.Errorf("the client stays out of the DHT: %w", ErrUnsupported)

// dhtMember is a client's node in the DHT, if it has joined.
type dhtMember struct {
	mu   sync.Mutex // taken before the client's
	node *dht.Node
	over bool // the client is closed
}

// joinDHT returns the client's node, and has it join the DHT the first time.
func (c *Client) joinDHT() (*dht.Node, error) {
	if c.NoDHT {
		return nil, errNoDHT
	}
	m := &c.dhtMember
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over {
		return nil, ErrClosed
	}
	if m.node != nil {
		return m.node, nil
	}
	if err := c.openPackets(); err != nil {
		return nil, err
	}
	cfg := dht.Config{
		Send:     c.sendPacket,
		Nodes:    c.DHTNodes,
		LookUp:   c.lookUpFor(sockets.DHT),
		ReadOnly: c.Proxy != nil, // no node can ask us there
		Version:  dhtVersion,
		Allow:    c.Allow,
		Rand:     c.newRand(),
	}
	if c.DHTNodes == nil {
		cfg.Routers = dht.Routers()
	}
	for _, a := range c.mux.Addrs() {
		cfg.IPv4 = cfg.IPv4 || a.Addr().Unmap().Is4()
		cfg.IPv6 = cfg.IPv6 || a.Addr().Is6()
	}
	m.node = dht.New(cfg)
	c.mux.Handle(udpmux.KRPC, m.node.Receive, nil)
	return m.node, nil
}

// member returns the client's node if it has joined the DHT, or nil.
func (m *dhtMember) member() *dht.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.node
}

// leave ends the node, before the sockets are closed.
func (m *dhtMember) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = true
	if m.node != nil {
		m.node.Close()
	}
}

// dhtPort is the UDP port that peers are told of (BEP 5), or 0 if we are not in the DHT.
func (c *Client) dhtPort() uint16 {
	if c.dhtMember.member() == nil {
		return 0
	}
	if c.Proxy != nil {
		return 0
	}
	for _, a := range c.mux.Addrs() {
		return a.Port()
	}
	return 0
}

// heardOfNode takes the address of a node that a peer told of.
func (c *Client) heardOfNode(a netip.AddrPort) {
	if node := c.dhtMember.member(); node != nil {
		node.AddNode(a)
	}
}

// preparePackets makes all that speaks UDP. No socket is opened before something is sent.
func (c *Client) preparePackets() {
	c.mux = udpmux.New(udpmux.Config{Listen: c.sockets.ListenPacket, Bind: c.bindPackets()})
	c.udp = tracker.NewUDP(c.sendPacket, c.lookUpFor(sockets.Tracker))
	c.mux.Handle(udpmux.Tracker, c.udp.Receive, nil)
	if c.NoUTP || c.sockets.NoUDP() != nil {
		return
	}
	o := utp.Config{Network: c.mux, Unconfirmed: c.MaxPeers, Account: c.account}
	if c.hooks.seed != 0 { // otherwise its numbers cannot be foreseen
		o.Random = mathrand.NewPCG(c.rng.Uint64(), c.rng.Uint64())
	}
	c.utp = utp.NewSocket(o)
	c.mux.HandleRuns(udpmux.UTP, c.utp.Receive, c.utp.Flush)
	c.transport.dialUTP = func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
		err := c.openPackets()
		if err == nil {
			err = c.sockets.UDPErr()
		}
		if err != nil {
			return nil, err
		}
		return c.utp.Dial(ctx, addr)
	}
}

// bindPackets is the address that UDP sockets are bound to, where Bind or that of the TCP listener says one.
func (c *Client) bindPackets() netip.Addr {
	switch {
	case c.Proxy != nil:
		return netip.Addr{}
	case c.Bind.IsValid():
		return c.sockets.Bind()
	}
	addr, err := netip.ParseAddrPort(c.Listen)
	if err != nil || addr.Addr().IsUnspecified() {
		return netip.Addr{}
	}
	return addr.Addr().Unmap()
}

// listenUTP accepts peers by uTP.
func (c *Client) listenUTP() error {
	if err := c.openPackets(); err != nil {
		return err
	}
	l, err := c.utp.Listen()
	if err == nil {
		c.takeFrom(l)
	}
	return err
}

// openPackets opens the UDP sockets, on the number of the TCP port if it is free.
func (c *Client) openPackets() error {
	if err := c.sockets.NoUDP(); err != nil {
		return unsupported(err)
	}
	port := c.port()
	if c.NoTCP {
		if _, said, err := net.SplitHostPort(c.Listen); err == nil {
			number, _ := strconv.ParseUint(said, 10, 16)
			port = uint16(number)
		}
	}
	err := c.mux.Open(c.ctx, port)
	if errors.Is(err, syscall.EADDRINUSE) && !c.NoTCP {
		err = c.mux.Open(c.ctx, 0)
	}
	return err
}

// sendPacket sends one packet. What the system has no room for is lost, as on any link.
func (c *Client) sendPacket(p []byte, to netip.AddrPort) error {
	if err := c.openPackets(); err != nil {
		return err
	}
	_, err := c.mux.Send(p, 0, to)
	return err
}
