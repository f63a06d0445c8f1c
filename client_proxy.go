package torrent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/shoal-go/torrent/internal/lsd"
	"github.com/shoal-go/torrent/internal/portmap"
	"github.com/shoal-go/torrent/internal/sockets"
	"github.com/shoal-go/torrent/internal/tracker"
)

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

// prepareHTTP makes what speaks HTTP.
func (c *Client) prepareHTTP() {
	if c.HTTPClient != nil {
		c.http = c.sockets.Obey(c.HTTPClient)
		c.ownHTTP = c.http != c.HTTPClient
		return
	}
	c.ownHTTP = true
	c.http = tracker.NewHTTPClient(tracker.HTTPConfig{Dial: c.sockets.DialHost, Single: c.Proxy != nil || c.Bind.IsValid(), NoProxy: c.Proxy != nil})
}

// listenMulticast hears what is sent to a group in the local network, by the interface that Bind says.
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

// lookUpFor looks up hosts that speak by packets, once there is a way for these.
func (c *Client) lookUpFor(k sockets.Kind) func(ctx context.Context, host string, port uint16) ([]netip.Addr, error) {
	lookUp := c.sockets.LookUpFor(k)
	return func(ctx context.Context, host string, port uint16) ([]netip.Addr, error) {
		if err := c.openPackets(); err != nil {
			return nil, err
		}
		return lookUp(ctx, host, port)
	}
}

// waysChanged has all sources of peers asked since the proxy, or UDP there, is within reach again.
func (c *Client) waysChanged() {
	if node := c.dhtMember.member(); node != nil {
		node.NetworkChanged(true, false)
	}
	for d := range c.Downloads() {
		d.Announce()
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
