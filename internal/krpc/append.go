package krpc

import (
	"encoding/binary"
	"net/netip"
	"strconv"
)

// Append appends the message to b. What is unsaid is left out; the caller sees
// to it that what is said fits in a datagram.
func (m *Message) Append(b []byte) []byte {
	b = append(b, 'd')
	if m.Kind == Query {
		b = m.appendArguments(append(b, "1:a"...))
	}
	if m.Kind == Failure {
		b = append(b, "1:el"...)
		b = append(strconv.AppendInt(append(b, 'i'), m.Code, 10), 'e')
		b = append(appendString(b, m.Text), 'e')
	}
	if m.Kind != Query && m.IP.IsValid() {
		b = append(b, "2:ip"...)
		b = appendEndpoint(appendLength(b, size(m.IP)), m.IP)
	}
	switch m.Kind {
	case Query:
		b = appendString(append(b, "1:q"...), m.Method)
		if m.ReadOnly {
			b = append(b, "2:roi1e"...)
		}
	case Response:
		b = m.appendValues(append(b, "1:r"...))
	}
	b = appendString(append(b, "1:t"...), m.TID)
	b = appendEntry(b, "v", m.Version)
	return append(b, "1:y1:"+string(m.Kind)+"e"...)
}

func (m *Message) appendArguments(b []byte) []byte {
	b = append(b, 'd')
	b = m.appendInt(b, "cas", m.CAS, HasCAS)
	b = m.appendID(b)
	b = appendFlag(b, "implied_port", m.ImpliedPort)
	hash := m.wantsInfoHash()
	if hash && m.Has&HasTarget != 0 {
		b = appendString(appendString(b, "info_hash"), m.Target[:])
	}
	b = appendEntry(b, "k", m.Key)
	b = appendFlag(b, "noseed", m.NoSeed)
	b = m.appendInt(b, "port", m.Port, HasPort)
	if len(m.Salt) > 0 { // an empty one is as none (BEP 44)
		b = appendEntry(b, "salt", m.Salt)
	}
	b = appendFlag(b, "scrape", m.Scrape)
	b = appendFlag(b, "seed", m.Seed)
	b = m.appendInt(b, "seq", m.Seq, HasSeq)
	b = appendEntry(b, "sig", m.Sig)
	if !hash && m.Has&HasTarget != 0 {
		b = appendString(appendString(b, "target"), m.Target[:])
	}
	b = appendEntry(b, "token", m.Token)
	b = m.appendValue(b)
	if m.Has&HasWant != 0 {
		b = append(b, "4:wantl"...)
		if m.Want4 {
			b = append(b, "2:n4"...)
		}
		if m.Want6 {
			b = append(b, "2:n6"...)
		}
		b = append(b, 'e')
	}
	return append(b, 'e')
}

func (m *Message) appendValues(b []byte) []byte {
	b = append(b, 'd')
	b = appendEntry(b, "BFpe", m.PeerFilter)
	b = appendEntry(b, "BFsd", m.SeedFilter)
	b = m.appendID(b)
	b = m.appendInt(b, "interval", m.Interval, HasInterval)
	b = appendEntry(b, "k", m.Key)
	if m.Has&HasNodes != 0 {
		b = appendContacts(append(b, "5:nodes"...), m.Nodes, 4)
	}
	if m.Has&HasNodes6 != 0 {
		b = appendContacts(append(b, "6:nodes6"...), m.Nodes6, 16)
	}
	b = m.appendInt(b, "num", m.Num, HasNum)
	b = appendEntry(b, "samples", m.Samples)
	b = m.appendInt(b, "seq", m.Seq, HasSeq)
	b = appendEntry(b, "sig", m.Sig)
	b = appendEntry(b, "token", m.Token)
	b = m.appendValue(b)
	if len(m.Values) > 0 {
		b = append(b, "6:valuesl"...)
		for _, peer := range m.Values {
			b = appendEndpoint(appendLength(b, size(peer)), peer)
		}
		b = append(b, 'e')
	}
	return append(b, 'e')
}

// wantsInfoHash reports whether the query names its target info_hash.
func (m *Message) wantsInfoHash() bool {
	return string(m.Method) == GetPeers || string(m.Method) == AnnouncePeer
}

func (m *Message) appendID(b []byte) []byte {
	if m.Has&HasID == 0 {
		return b
	}
	return appendString(append(b, "2:id"...), m.ID[:])
}

func (m *Message) appendInt(b []byte, key string, v int64, has Fields) []byte {
	if m.Has&has == 0 {
		return b
	}
	return append(strconv.AppendInt(append(appendString(b, key), 'i'), v, 10), 'e')
}

// appendValue appends what is encoded already.
func (m *Message) appendValue(b []byte) []byte {
	if m.Value == nil {
		return b
	}
	return append(append(b, "1:v"...), m.Value...)
}

func appendFlag(b []byte, key string, set bool) []byte {
	if !set {
		return b
	}
	return append(appendString(b, key), "i1e"...)
}

func appendEntry(b []byte, key string, value []byte) []byte {
	if value == nil {
		return b
	}
	return appendString(appendString(b, key), value)
}

func appendContacts(b []byte, nodes []Contact, addrSize int) []byte {
	b = appendLength(b, len(nodes)*(len(ID{})+addrSize+2))
	for _, n := range nodes {
		b = appendEndpoint(append(b, n.ID[:]...), n.Addr)
	}
	return b
}

func appendString[S string | []byte](b []byte, s S) []byte {
	return append(appendLength(b, len(s)), s...)
}

func appendLength(b []byte, n int) []byte {
	return append(strconv.AppendInt(b, int64(n), 10), ':')
}

// appendEndpoint appends an address and a port in compact form.
func appendEndpoint(b []byte, a netip.AddrPort) []byte {
	if ip := a.Addr(); ip.Is4() {
		p := ip.As4()
		b = append(b, p[:]...)
	} else {
		p := ip.As16()
		b = append(b, p[:]...)
	}
	return binary.BigEndian.AppendUint16(b, a.Port())
}

// size is that of an endpoint in compact form.
func size(a netip.AddrPort) int {
	if a.Addr().Is4() {
		return 6
	}
	return 18
}
