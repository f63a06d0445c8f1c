package torrent

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/shoal-go/torrent/internal/dht"
	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/portmap"
)

// PortMapping is where a router lets peers in.
type PortMapping struct {
	Protocol string     // PCP, NAT-PMP or UPnP
	Router   netip.Addr // that was asked
	External netip.Addr // our address as the router says it; invalid if it does not
	TCP, UDP uint16     // external ports; 0 is none
}

// portMappings is what routers have been asked for. The client's mutex guards it.
type portMappings struct {
	held []portmap.Mapping
	err  error // why there is no other
}

// mapPorts has routers let peers in until the client is closed.
func (c *Client) mapPorts() {
	if c.Proxy != nil {
		c.portsMapped(nil, fmt.Errorf("no router is asked beside Client.Proxy: %w", ErrUnsupported))
		return
	}
	if c.port() == 0 {
		return
	}
	if err := c.sockets.NoUDP(); err != nil {
		c.portsMapped(nil, unsupported(err))
		return
	}
	c.mapper = portmap.New(portmap.Config{
		Port:         c.port(),
		TCP:          !c.NoTCP,
		UDP:          c.utp != nil || !c.NoDHT,
		ListenPacket: c.sockets.ListenNear,
		Dial:         c.sockets.DialNear,
		Gateways:     c.gateways,
		Report:       c.portsMapped,
		Log:          c.log,
	})
	c.tasks.Go(func() { c.mapper.Run(c.ctx) })
}

// portsMapped takes what routers grant now, and has the downloads say so.
func (c *Client) portsMapped(held []portmap.Mapping, err error) {
	c.mu.Lock()
	before := c.mapped.publicPort()
	c.mapped = portMappings{slices.Clone(held), err}
	moved := c.mapped.publicPort() != before
	c.mu.Unlock()
	c.locate(c.dhtMember.member())
	for _, f := range c.discoveries() {
		f.knowExternal()
		if moved {
			f.portChanged()
		}
	}
}

// externals are the addresses, with the ports there, at which routers have the Internet reach us. A private one is not: there is
// another router behind.
func (c *Client) externals() (all []netip.AddrPort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.mapped.held {
		if a := m.External.Unmap(); a.IsValid() && !netaddr.IsLocal(a) {
			all = append(all, netip.AddrPortFrom(a, cmp.Or(m.TCP, m.UDP)))
		}
	}
	return all
}

// locate tells the DHT where routers have the Internet reach us (BEP 42), if we are in it.
func (c *Client) locate(node *dht.Node) {
	if node == nil {
		return
	}
	for _, a := range c.externals() {
		node.Located(a.Addr())
	}
}

// knowExternal has candidates ordered by where we are, as routers say (BEP 40).
func (f *discovery) knowExternal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.client.externals() {
		f.cand.SetExternal(a)
	}
}

// publicPort is the external port of IPv4, where peers reach most hosts behind a router; 0 is none.
func (p *portMappings) publicPort() uint16 {
	for _, m := range p.held {
		switch {
		case !m.Local.Is4():
		case m.TCP != 0:
			return m.TCP
		case m.UDP != 0:
			return m.UDP
		}
	}
	return 0
}

// publicPort is the port that others are told to connect to: the one that a router has mapped, or the one that we
// listen at; 0 is none.
func (c *Client) publicPort() uint16 {
	c.mu.Lock()
	mapped := c.mapped.publicPort()
	c.mu.Unlock()
	if mapped != 0 {
		return mapped
	}
	return c.port()
}

// stats is the mappings as ClientStats shows them.
func (p *portMappings) stats() (all []PortMapping) {
	for _, m := range p.held {
		all = append(all, PortMapping{Protocol: m.By.String(), Router: m.Router, External: m.External, TCP: m.TCP, UDP: m.UDP})
	}
	return all
}
