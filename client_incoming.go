package torrent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/mse"
	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/peerlist"
)

const (
	maxGreetings          = 100 // incoming connections in their handshake
	maxGreetingPerAddress = 3
)

// A greeting is an incoming connection in its handshake.
type greeting struct {
	peerlist.Greeting
	conn net.Conn
}

// accept takes connections until the listener is closed.
func (c *Client) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err == nil {
			c.welcome(conn)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		c.log.Warn("accept", "err", err)
		select { // out of file handles, most likely: let some go first
		case <-time.After(tick):
		case <-c.ctx.Done():
			return
		}
	}
}

// welcome shakes hands with a peer that connected. Where too many do so at once, one of the largest crowd makes
// room.
func (c *Client) welcome(conn net.Conn) {
	addr := netaddr.Of(conn.RemoteAddr())
	g := &greeting{peerlist.Greeting{Addr: addr.Addr()}, conn}
	if !addr.IsValid() || !c.allows(addr.Addr()) {
		conn.Close()
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || !netaddr.IsLocal(g.Addr) && c.greetingsFrom(g.Addr) >= maxGreetingPerAddress {
		conn.Close()
		return
	}
	if len(c.greetings) >= maxGreetings {
		all := make([]peerlist.Greeting, 0, maxGreetings)
		for _, g := range c.greetings {
			all = append(all, g.Greeting)
		}
		out := peerlist.Shed(all, g.Addr)
		c.greetings[out].conn.Close()
		c.greetings = slices.Delete(c.greetings, out, out+1)
	}
	c.greetings = append(c.greetings, g)
	c.tasks.Go(func() { c.receive(g, addr) })
}

// allows reports whether the user allows dealings with an unmapped address.
func (c *Client) allows(a netip.Addr) bool { return c.Allow == nil || c.Allow(a) }

// greetingsFrom is how many of those in their handshake come from an address. The caller holds c.mu.
func (c *Client) greetingsFrom(from netip.Addr) (n int) {
	for _, g := range c.greetings {
		if g.Addr == from {
			n++
		}
	}
	return n
}

// hear waits for the beginning of a handshake, on which alone something is spent, and answers it.
func (c *Client) hear(g *greeting, addr netip.AddrPort) (*connection, *Download, error) {
	until := time.Now().Add(handshakeTimeout)
	g.conn.SetReadDeadline(until)
	var first [mse.PlainSize]byte
	if _, err := io.ReadFull(g.conn, first[:]); err != nil {
		g.conn.Close()
		return nil, nil, fmt.Errorf("handshake: %w", err)
	}
	c.mu.Lock()
	g.Spoke = true
	c.mu.Unlock()
	g.conn.SetReadDeadline(time.Time{})
	ctx, cancel := context.WithDeadline(c.ctx, until)
	defer cancel()
	return c.answer(ctx, g.conn, addr, first)
}

// hangUp ends all handshakes.
func (c *Client) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, g := range c.greetings {
		g.conn.Close()
	}
}

// receive hands a connection to the download that the peer asks for.
func (c *Client) receive(g *greeting, addr netip.AddrPort) {
	k, d, err := c.hear(g, addr)
	c.mu.Lock()
	if i := slices.Index(c.greetings, g); i >= 0 {
		c.greetings = slices.Delete(c.greetings, i, i+1)
	}
	c.mu.Unlock()
	if err != nil {
		c.log.Debug("incoming", "peer", addr, "err", err)
		return
	}
	if !d.addPeer(k, peerlist.FromIncoming) {
		k.Close()
	}
}
