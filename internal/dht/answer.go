package dht

import (
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/krpc"
)

const (
	maxPeers4 = 100 // peers in an answer; fewer, if they do not fit
	maxPeers6 = 25
)

// asked takes a query, and answers it if the guard admits it. Its address may be forged: a query counts neither for
// nor against a node, unless it shows a token.
func (c *core) asked(now time.Time, h *half, m *krpc.Message, from netip.AddrPort) {
	c.stats.QueriesReceived++
	if c.cfg.ReadOnly || !c.guard.admit(now, from) { // BEP 43
		c.stats.Silenced++
		return
	}
	if m.Has&krpc.HasID == 0 {
		c.refuse(now, m, from, krpc.ProtocolError, "no id")
		return
	}
	if !m.ReadOnly {
		stranger := !h.table.has(from)
		h.table.heard(now, krpc.Contact{ID: m.ID, Addr: from}, true)
		if soon := now.Add(trySoon); stranger && h.table.size < bucketSize && soon.Before(h.tryAt) {
			h.tryAt = soon
		}
	}
	switch string(m.Method) {
	case krpc.Ping:
	case krpc.AnnouncePeer:
		if !c.announced(now, h, m, from) {
			return
		}
	case krpc.Put:
		if !c.put(now, h, m, from) {
			return
		}
	default: // an unknown query with a target is answered as find_node
		if !c.answerTarget(now, h, m, from) {
			return
		}
	}
	c.respond(now, h, m, from)
}

// answerTarget fills reply with what is known of the target of a query, or refuses a query without one.
func (c *core) answerTarget(now time.Time, h *half, m *krpc.Message, from netip.AddrPort) (ok bool) {
	method := string(m.Method)
	if m.Has&krpc.HasTarget == 0 {
		if method == krpc.FindNode || method == krpc.GetPeers || method == krpc.Get || method == krpc.SampleInfohashes {
			c.refuse(now, m, from, krpc.ProtocolError, "no target")
		} else {
			c.refuse(now, m, from, krpc.MethodUnknown, "unknown query")
		}
		return false
	}
	c.nodesFor(h, m, from)
	r := &c.reply
	switch method {
	case krpc.GetPeers:
		if h.peers.room(h.table.self, m.Target, from) {
			r.Token = c.tokens.make(now, from.Addr(), m.Target)
		}
		c.peersFor(h, m, from)
	case krpc.Get:
		if c.items.room(h.table.self, m.Target, from) {
			r.Token = c.tokens.make(now, from.Addr(), m.Target)
		}
		c.itemFor(m)
	case krpc.SampleInfohashes:
		r.Has |= krpc.HasInterval | krpc.HasNum
		r.Interval, r.Num = int64(sampleInterval/time.Second), int64(len(h.peers.swarms))
		r.Samples = make([]byte, 0, maxSample*len(ID{}))
		for _, hash := range h.peers.hashes(now) {
			r.Samples = append(r.Samples, hash[:]...)
		}
	}
	return true
}

// respond sends what is in reply as the response to a query. If it does not fit, parts are left out: nodes of the
// family that was not asked over, then random peers, then nodes.
func (c *core) respond(now time.Time, h *half, m *krpc.Message, to netip.AddrPort) {
	r := &c.reply
	r.Kind, r.TID, r.Version, r.IP = krpc.Response, m.TID, c.version(), to
	r.Has |= krpc.HasID
	r.ID = h.table.self
	other, otherHas, own, nodeSize, peerSize := &r.Nodes6, krpc.HasNodes6, &r.Nodes, 26, 8
	if h.family == ipv6 {
		other, otherHas, own, nodeSize, peerSize = &r.Nodes, krpc.HasNodes, &r.Nodes6, 38, 21
	}
	c.encode()
	for len(c.scratch) > krpc.MaxAnswer {
		over := len(c.scratch) - krpc.MaxAnswer
		switch {
		case r.Has&otherHas != 0 && len(*other) > 0:
			r.Has &^= otherHas
		case len(r.Values) > 0:
			r.Values = r.Values[:max(0, len(r.Values)-(over+peerSize-1)/peerSize)]
		case len(*own) > 0:
			*own = (*own)[:max(0, len(*own)-(over+nodeSize-1)/nodeSize)]
		default:
			// One value of BEP 44 may be too large alone. It is sent all the same, because otherwise no node could
			// ever fetch it.
			c.answer(now, to)
			return
		}
		c.encode()
	}
	c.answer(now, to)
}

// answer sends what is in scratch.
func (c *core) answer(now time.Time, to netip.AddrPort) {
	c.stats.AnswersSent++
	c.guard.answered(now, to, len(c.scratch))
	c.flush(to)
}

// refuse answers a query with an error.
func (c *core) refuse(now time.Time, m *krpc.Message, to netip.AddrPort, code int64, text string) {
	c.reply = krpc.Message{Kind: krpc.Failure, TID: m.TID, Version: c.version(), IP: to, Code: code, Text: []byte(text)}
	c.encode()
	c.answer(now, to)
}

// nodesFor adds the nodes nearest to the target, of the families that are wanted (BEP 32): good ones, and
// local ones only for local nodes.
func (c *core) nodesFor(h *half, m *krpc.Message, to netip.AddrPort) {
	var want [families]bool
	want[h.family] = true
	if m.Has&krpc.HasWant != 0 && (m.Want4 || m.Want6) {
		want = [families]bool{ipv4: m.Want4, ipv6: m.Want6}
	}
	for f, of := range c.fams {
		if !want[f] || of == nil {
			continue
		}
		near := of.table.closest(m.Target, c.near[:0:bucketSize], func(e *entry) bool {
			return e.fails == 0 && e.Addr != to && mayName(to, e.Addr)
		})
		if family(f) == ipv4 {
			c.reply.Nodes, c.reply.Has = append(c.reply.Nodes[:0], near...), c.reply.Has|krpc.HasNodes
		} else {
			c.reply.Nodes6, c.reply.Has = append(c.reply.Nodes6[:0], near...), c.reply.Has|krpc.HasNodes6
		}
	}
}

// peersFor adds peers of the swarm, or the filters of a scrape (BEP 33).
func (c *core) peersFor(h *half, m *krpc.Message, to netip.AddrPort) {
	if m.Scrape {
		if seeds, leeches, ok := h.peers.filters(m.Target); ok {
			c.reply.SeedFilter, c.reply.PeerFilter = seeds[:], leeches[:]
		}
	}
	most := maxPeers4
	if h.family == ipv6 {
		most = maxPeers6
	}
	c.reply.Values = h.peers.draw(m.Target, most, m.NoSeed, c.reply.Values[:0], func(p netip.AddrPort) bool { return mayName(to, p) })
}

// itemFor adds an item (BEP 44), without its value if the querying node has that already.
func (c *core) itemFor(m *krpc.Message) {
	item, r := c.items.get(m.Target), &c.reply
	if item == nil {
		return
	}
	if item.Key != nil {
		r.Has |= krpc.HasSeq
		r.Seq = item.Seq
		if m.Has&krpc.HasSeq != 0 && item.Seq <= m.Seq {
			return
		}
		r.Key, r.Sig = item.Key, item.Sig
	}
	r.Value = item.Value
}

// announced stores a peer, or refuses to.
func (c *core) announced(now time.Time, h *half, m *krpc.Message, from netip.AddrPort) bool {
	port := m.Port
	if m.ImpliedPort {
		port = int64(from.Port())
	}
	switch {
	case m.Has&krpc.HasTarget == 0:
		c.refuse(now, m, from, krpc.ProtocolError, "no info_hash")
	case port < 1 || port > 0xffff:
		c.refuse(now, m, from, krpc.ProtocolError, "no port")
	case !c.tokens.valid(now, m.Token, from.Addr(), m.Target):
		c.refuse(now, m, from, krpc.ProtocolError, "bad token")
	case !h.peers.announce(now, h.table.self, m.Target, netip.AddrPortFrom(from.Addr(), uint16(port)), m.Seed):
		c.refuse(now, m, from, krpc.ServerError, "no room")
	default:
		return true
	}
	return false
}

// put stores an item, or refuses to.
func (c *core) put(now time.Time, h *half, m *krpc.Message, from netip.AddrPort) bool {
	item := Item{Value: m.Value, Key: m.Key, Salt: m.Salt, Seq: m.Seq, Sig: m.Sig}
	var cas *int64
	if m.Has&krpc.HasCAS != 0 {
		cas = &m.CAS
	}
	fault := item.check()
	if fault == nil && item.Key != nil && m.Has&krpc.HasSeq == 0 {
		fault = &itemFault{krpc.ProtocolError, "no sequence number"}
	}
	if fault == nil && !c.tokens.valid(now, m.Token, from.Addr(), item.Target()) {
		fault = &itemFault{krpc.ProtocolError, "bad token"}
	}
	if fault == nil {
		fault = c.items.put(now, h.table.self, &item, cas, from)
	}
	if fault != nil {
		c.refuse(now, m, from, fault.code, fault.reason)
	}
	return fault == nil
}
