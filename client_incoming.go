package torrent

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/peerlist"
)

const (
	maxGreetings          = 100 // incoming connections in their handshake
	maxGreetingPerAddress = 3
)

// A greeting is an incoming connection in its handshake.
type greeting struct {
	from netip.Addr
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

// welcome shakes hands with a peer that connected. Where too many do so at once, the one that has taken
// longest makes room: an honest handshake takes no longer than a few round trips.
func (c *Client) welcome(conn net.Conn) {
	addr := netaddr.Of(conn.RemoteAddr())
	g := &greeting{addr.Addr(), conn}
	if !addr.IsValid() || !c.allows(addr.Addr()) {
		conn.Close()
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || !netaddr.IsLocal(g.from) && c.greetingsFrom(g.from) >= maxGreetingPerAddress {
		conn.Close()
		return
	}
	if len(c.greetings) >= maxGreetings {
		c.greetings[0].conn.Close()
		c.greetings = c.greetings[1:]
	}
	c.greetings = append(c.greetings, g)
	c.tasks.Go(func() { c.receive(g, addr) })
}

// allows reports whether the user allows dealings with an unmapped address.
func (c *Client) allows(a netip.Addr) bool { return c.Allow == nil || c.Allow(a) }

// greetingsFrom is how many of those in their handshake come from an address. The caller holds mu.
func (c *Client) greetingsFrom(from netip.Addr) (n int) {
	for _, g := range c.greetings {
		if g.from == from {
			n++
		}
	}
	return n
}

// receive hands a connection to the download that the peer asks for.
func (c *Client) receive(g *greeting, addr netip.AddrPort) {
	k, d, err := c.answer(c.ctx, g.conn, addr)
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
