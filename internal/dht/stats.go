package dht

import "net/netip"

// Stats is what a node has done since it was made.
type Stats struct {
	Nodes4, Nodes6 int        // nodes in the routing tables
	External4      netip.Addr // our addresses as others see them, or a router says; the zero Addr if too few agree
	External6      netip.Addr

	QueriesSent     int64 // by us
	AnswersReceived int64 // to them, errors among them
	TimedOut        int64 // of them, unanswered after 15 s

	QueriesReceived int64
	AnswersSent     int64 // to them, errors among them
	Silenced        int64 // of them, unanswered since it would be too much, or we are read-only
	Dropped         int64 // datagrams that were no message, or answered nothing

	BytesSent, BytesReceived int64 // of datagrams, without the headers of UDP and IP
	SendErrors               int64

	Lookups  int64 // begun
	Torrents int   // that are kept
	Swarms   int   // that others announced to us
	Peers    int   // of those swarms
	Items    int   // that others put here
}

func (c *core) statsNow() Stats {
	s := c.stats
	for _, h := range c.fams {
		if h == nil {
			continue
		}
		if h.family == ipv4 {
			s.Nodes4, s.External4 = h.table.size, h.vote.Winner()
		} else {
			s.Nodes6, s.External6 = h.table.size, h.vote.Winner()
		}
		s.Swarms += len(h.peers.swarms)
		s.Peers += h.peers.peers
	}
	s.Torrents = c.kept.Len() + c.kept.running
	s.Items = len(c.items.items)
	return s
}
