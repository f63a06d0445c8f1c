package torrent

import (
	"context"
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/peerlist"
)

// claim is that of a download, or of a magnet link, with so many connections. The caller holds mu.
func (c *Client) claim(has int) peerlist.Claim {
	return peerlist.Claim{Has: has, Sharing: len(c.registry.serving), Most: c.MaxPeers}
}

// excess is how many of so many connections are to make room for those of another download now.
func (c *Client) excess(has int, now time.Time) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.budget.Excess(c.claim(has), now)
}

// allTaken reports whether a download with so many connections, which are its share, gets another only in the place
// of one of them.
func (c *Client) allTaken(has int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.budget.AllTaken(c.claim(has))
}

// mayDial reports whether a download with so many connections may make one more now, to an address, and counts it if so.
func (c *Client) mayDial(has int, addr netip.Addr, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.budget.Dial(c.claim(has), addr, now)
}

// targetAt is when an address may be dialled, as far as other dials of the same host decide it.
func (c *Client) targetAt(addr netip.Addr, from peerlist.Source, now time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.budget.TargetAt(addr, from, now)
}

// redial waits until a dial under way may connect once more.
func (c *Client) redial(ctx context.Context, addr netip.Addr) error {
	for {
		c.mu.Lock()
		wait := c.budget.Redial(addr, time.Now())
		c.mu.Unlock()
		if wait == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// endDial follows mayDial, and joinedPeer if a connection came of it.
func (c *Client) endDial() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.budget.EndDial()
}

// dialAt is when a download with so many connections is to dial the next of cand, if that is known.
func (c *Client) dialAt(cand *peerlist.List, has int, now time.Time) (at time.Time, ok bool) {
	at, ok = cand.Due()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.budget.DialAt(c.claim(has), at, now), ok
}

// mayJoin reports whether a download with so many connections may take one that a peer made, and counts it if so.
func (c *Client) mayJoin(has int, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.budget.Accept(c.claim(has), now)
}

// joinedPeer counts a connection that mayDial had allowed; leftPeer ends any.
func (c *Client) joinedPeer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.budget.Joined()
}

func (c *Client) leftPeer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.budget.Left()
}
