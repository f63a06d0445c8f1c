package torrent

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/shoal-go/torrent/internal/tracker"
	"github.com/shoal-go/torrent/internal/udpmux"
)

// errNoUDP is why nothing is sent by UDP.
var errNoUDP = fmt.Errorf("no UDP with Client.Dial and without Client.ListenPacket: %w", ErrUnsupported)

// preparePackets makes all that speaks UDP. No socket is opened before something is sent.
func (c *Client) preparePackets() {
	c.mux = udpmux.New(udpmux.Config{Listen: c.ListenPacket})
	c.udp = tracker.NewUDP(c.sendPacket, c.hooks.lookup)
	c.mux.Handle(udpmux.Tracker, c.udp.Receive, nil)
}

// openPackets opens the UDP sockets, on the number of the TCP port if it is free.
func (c *Client) openPackets() error {
	if c.Dial != nil && c.ListenPacket == nil {
		return errNoUDP
	}
	err := c.mux.Open(c.ctx, c.port())
	if errors.Is(err, syscall.EADDRINUSE) {
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
