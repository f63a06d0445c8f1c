package torrent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/lsd"
	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/netwatch"
	"github.com/shoal-go/torrent/internal/portmap"
	"github.com/shoal-go/torrent/internal/sockets"
	"github.com/shoal-go/torrent/internal/tracker"
)

const (
	// lookBound is how often the addresses of this machine are looked at while everything is bound to one of them.
	lookBound = time.Second
	// forgottenAfter is how long other ends keep a silent connection. After a sleep longer than that, every connection is
	// lost.
	forgottenAfter = 2 * time.Minute
	// movesAtOnce is how many changes of the network in a row have trackers asked before they allow that, and movesEvery how
	// often further ones do. Addresses that have nothing to do with us, such as those of containers, may come and go all the time.
	movesAtOnce = 5
	movesEvery  = 10 * time.Minute
)

var errNetworkChanged = errors.New("the machine's network has changed, or it slept")

// watchNetwork follows the addresses of this machine, and its sleep, until the client is closed.
func (c *Client) watchNetwork() {
	every := netwatch.Every
	if c.sockets.Bind().IsValid() {
		every = lookBound
	}
	var w netwatch.Watch
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-timer.C:
		}
		now := time.Now()
		addrs, err := c.sockets.Addrs()
		if err != nil {
			c.log.Debug("look at the network", "err", err)
		} else if change := w.Look(now, c.hooks.wall(), addrs); change.Any() {
			c.networkChanged(change, addrs)
		}
		timer.Reset(time.Until(w.Next(now, every)))
	}
}

// networkChanged acts on a change of the network. It ends what is lost at once, and starts again what was lost when
// the network has settled.
func (c *Client) networkChanged(change netwatch.Change, addrs []netip.Addr) {
	if change.Slept > 0 || len(change.Gone)+len(change.Come) > 0 {
		c.log.Info("network changed", "gone", change.Gone, "come", change.Come, "slept", change.Slept)
		c.networkLost(change)
	}
	if (change.Settled || change.Again) && c.isOnline(addrs) {
		c.networkSettled(change.Settled, addrs)
	}
}

// networkLost ends the connections that cannot continue, and replaces sockets.
func (c *Client) networkLost(change netwatch.Change) {
	bind := c.sockets.Bind()
	if slices.Contains(change.Gone, bind) || slices.Contains(change.Come, bind) {
		c.sockets.Renew()
	}
	for _, f := range c.discoveries() {
		f.disconnect(func(k *connection) bool { return change.Slept >= forgottenAfter || isLost(k, change.Gone) })
	}
	c.udp.Forget()
	if c.ListenPacket == nil || c.Proxy != nil || bind.IsValid() { // the user's own sockets know best
		c.mux.Reopen()
	}
	if c.ownHTTP {
		c.http.CloseIdleConnections()
	}
}

// isLost reports whether a connection was made from an address that this machine no longer has. The address of a uTP
// connection is not known, because its socket is bound to all of them.
func isLost(k *connection, gone []netip.Addr) bool {
	local := netaddr.Of(k.LocalAddr()).Addr()
	return slices.ContainsFunc(gone, func(a netip.Addr) bool {
		return a == local || k.way == byUTP && a.Is4() == k.addr.Addr().Is4() && !a.IsLoopback()
	})
}

// isOnline reports whether there may be a network.
func (c *Client) isOnline(addrs []netip.Addr) bool {
	if bind := c.sockets.Bind(); bind.IsValid() && !bind.IsLoopback() {
		return slices.Contains(addrs, bind)
	}
	return slices.ContainsFunc(addrs, func(a netip.Addr) bool { return !a.IsLoopback() && !a.IsLinkLocalUnicast() })
}

// networkSettled tells others our present addresses. first is false if that was done already and only what has failed
// since is tried again.
func (c *Client) networkSettled(first bool, addrs []netip.Addr) {
	if c.mapper != nil {
		c.mapper.Refresh()
	}
	if first {
		if node := c.dhtMember.member(); node != nil {
			node.NetworkChanged(c.packetFamilies(addrs))
		}
		if c.local != nil {
			c.local.Rejoin()
		}
	}
	first = first && c.moves.Allow()
	for _, f := range c.discoveries() {
		f.networkChanged(first)
	}
	c.reviveWebSeeds()
}

// packetFamilies reports over which address families packets may be sent: those of the sockets, and those of this machine's
// addresses, of which there may be a socket later.
func (c *Client) packetFamilies(addrs []netip.Addr) (v4, v6 bool) {
	if c.Proxy != nil {
		return true, false
	}
	for _, a := range c.mux.Addrs() {
		v4, v6 = v4 || a.Addr().Is4(), v6 || a.Addr().Is6()
	}
	bind := c.bindPackets()
	for _, a := range addrs {
		if (!bind.IsValid() || a.Is4() == bind.Is4()) && !a.IsLoopback() && !a.IsLinkLocalUnicast() {
			v4, v6 = v4 || a.Is4(), v6 || a.Is6()
		}
	}
	return v4, v6
}

// discoveries are those that run.
func (c *Client) discoveries() (all []*discovery) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for f := range c.registry.searching {
		all = append(all, f)
	}
	return all
}

// newSockets returns what opens the client's sockets: all of them, so that Proxy and Bind are obeyed in one place.
func (c *Client) newSockets(h hooks) (*sockets.Sockets, error) {
	return sockets.New(sockets.Config{
		Proxy: c.Proxy, Bind: c.Bind, Dial: c.Dial, ListenPacket: c.ListenPacket,
		System:  sockets.System{Dial: h.dial, Listen: h.listen, ListenPacket: h.listenPacket, LookUp: h.lookup, Addrs: h.addrs},
		Changed: c.waysChanged,
	})
}

// listens reports whether peers may connect to us.
func (c *Client) listens() bool { return !c.NoListen && c.Proxy == nil }

// prepareHTTP makes the client's HTTP clients.
func (c *Client) prepareHTTP() {
	if c.HTTPClient != nil {
		c.http = c.sockets.Obey(c.HTTPClient)
		c.ownHTTP = c.http != c.HTTPClient
		return
	}
	c.ownHTTP = true
	c.http = tracker.NewHTTPClient(tracker.HTTPConfig{Dial: c.sockets.DialHost, Single: c.Proxy != nil || c.Bind.IsValid(), NoProxy: c.Proxy != nil})
}

// listenMulticast joins a multicast group of the local network, on the interface of Bind if that is set.
func (c *Client) listenMulticast(network string, group netip.AddrPort) (net.PacketConn, error) {
	if !c.sockets.Reaches(group.Addr()) {
		return nil, fmt.Errorf("%s: an address of another family than Client.Bind", group)
	}
	if listen := c.hooks.listenMulticast; listen != nil {
		return listen(network, group)
	}
	device, err := c.sockets.Device()
	if err != nil {
		return nil, err
	}
	return lsd.ListenMulticast(network, group, device, c.sockets.Bind())
}

// gateways are the routers that may be asked for a port.
func (c *Client) gateways() ([]portmap.Gateway, error) {
	bind := c.sockets.Bind()
	switch list := c.hooks.gateways; {
	case list != nil:
		all, err := list()
		return slices.DeleteFunc(slices.Clone(all), func(g portmap.Gateway) bool { return bind.IsValid() && g.Local != bind }), err
	case bind.IsValid():
		return portmap.GatewaysAt(bind)
	}
	return portmap.Gateways()
}

// lookUpFor returns a function that looks up hosts to send packets to, once packets can be sent.
func (c *Client) lookUpFor(k sockets.Kind) func(ctx context.Context, host string, port uint16) ([]netip.Addr, error) {
	lookUp := c.sockets.LookUpFor(k)
	return func(ctx context.Context, host string, port uint16) ([]netip.Addr, error) {
		if err := c.openPackets(ctx); err != nil {
			return nil, err
		}
		return lookUp(ctx, host, port)
	}
}

// lookUpForStrangers looks up a host that a stranger has named. It is nil with Client.Dial or Client.Proxy, which lead past all
// that this machine asks by itself.
func (c *Client) lookUpForStrangers() func(context.Context, string) ([]netip.Addr, error) {
	if c.Dial != nil || c.Proxy != nil {
		return nil
	}
	return c.sockets.LookUp
}

// waysChanged asks sources of peers again because UDP through the proxy has become available, or all of them if the
// proxy was out of reach.
func (c *Client) waysChanged(again bool) {
	if node := c.dhtMember.member(); node != nil {
		node.NetworkChanged(true, false)
	}
	if !again {
		return
	}
	for _, f := range c.discoveries() {
		f.networkChanged(false)
	}
	c.reviveWebSeeds()
}

// reviveWebSeeds asks web seeds again that could not be reached.
func (c *Client) reviveWebSeeds() {
	now := time.Now()
	for d := range c.Downloads() {
		d.mu.Lock()
		for _, w := range d.webSeeds {
			w.health.Revive(now)
			for _, s := range w.streams {
				s.signal()
			}
		}
		d.mu.Unlock()
	}
}

// unsupported is an error of package sockets as the caller of this package knows it.
func unsupported(err error) error {
	if errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, ErrUnsupported) {
		return unsupportedError{err}
	}
	return err
}

type unsupportedError struct{ error }

func (e unsupportedError) Unwrap() []error { return []error{ErrUnsupported, e.error} }

// PortMapping is a port of a router that is forwarded to this client.
type PortMapping struct {
	Protocol string     // PCP, NAT-PMP or UPnP
	Router   netip.Addr // that was asked
	External netip.Addr // our address as the router says it; invalid if it does not
	TCP, UDP uint16     // external ports; 0 is none
}

// portMappings holds the mappings that routers have granted. The client's mutex guards it.
type portMappings struct {
	held []portmap.Mapping
	err  error // why there is no other
}

// mapPorts keeps ports of routers mapped until the client is closed.
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

// portsMapped records the mappings that routers grant now, and has downloads announce the new port.
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

// externals returns the addresses and ports at which, as routers say, the Internet reaches us. Private addresses are left out: a
// router with one is behind another router.
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

// publicPort returns the external port of IPv4, at which peers reach most hosts behind a router; 0 is none.
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

// stats returns the mappings as ClientStats shows them.
func (p *portMappings) stats() (all []PortMapping) {
	for _, m := range p.held {
		all = append(all, PortMapping{Protocol: m.By.String(), Router: m.Router, External: m.External, TCP: m.TCP, UDP: m.UDP})
	}
	return all
}
