package torrent

import (
	"maps"
	"net"
	"slices"
)

// ClientStats is a snapshot of what a client's downloads do together.
type ClientStats struct {
	// Bytes of payload since the client was opened, received, sent, and received in vain: as in Stats, but of all
	// downloads, ended ones included, and without those of earlier runs. They never fall.
	Downloaded, Uploaded, Wasted int64

	Downloads  int      // under way, sharing ones included
	Peers      int      // connected, of all downloads and magnet links
	Dialling   int      // addresses being dialled
	Greeting   int      // incoming connections in their handshake
	Memory     int64    // bytes that unfinished pieces hold in memory
	MemoryMost int64    // the bound on Memory
	DHT        DHTStats // zero before the client joins
	Addr       net.Addr // where the client accepts peers, or nil
}

// totals are bytes of payload.
type totals struct{ downloaded, uploaded, wasted int64 }

func (t *totals) add(u totals) {
	t.downloaded += u.downloaded
	t.uploaded += u.uploaded
	t.wasted += u.wasted
}

// totals are the download's so far.
func (d *Download) totals() totals {
	d.mu.Lock()
	defer d.mu.Unlock()
	return totals{d.traffic.downloaded, d.traffic.uploaded, d.traffic.wasted}
}

// retire counts what d brought among that of ended downloads. Nothing of d runs any more.
func (c *Client) retire(d *Download) {
	last := d.totals()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.registry.counted, d)
	c.registry.ended.add(last)
}

// Stats returns a snapshot. It is cheap: no I/O, and nothing waits for it.
func (c *Client) Stats() ClientStats {
	s := ClientStats{Addr: c.Addr()}
	if node := c.dhtMember.member(); node != nil {
		s.DHT = (&DHT{node: node}).Stats()
	} else if c.NoDHT {
		s.DHT.Err = errNoDHT
	}
	c.mu.Lock()
	counted := slices.Collect(maps.Keys(c.registry.counted))
	sum := c.registry.ended
	for _, d := range c.registry.downloads {
		if d != nil {
			s.Downloads++
		}
	}
	s.Peers, s.Dialling = c.budget.InUse()
	s.Greeting = len(c.greetings)
	blocks := c.blocks
	c.mu.Unlock()
	for _, d := range counted {
		sum.add(d.totals())
	}
	s.Downloaded, s.Uploaded, s.Wasted = sum.downloaded, sum.uploaded, sum.wasted
	if blocks != nil {
		s.Memory, s.MemoryMost = blocks.Held()
	}
	return s
}
