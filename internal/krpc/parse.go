package krpc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/shoal-go/torrent/internal/bencode"
)

// packet bounds a message. A value of BEP 44 may be any that fits in 1,000 bytes, but few are deep.
var packet = bencode.Limits{Bytes: MaxPacket, Depth: 32, Values: 1024}

var errNoMessage = errors.New("krpc: no message")

// Parse reads the datagram p into m, whose lists it uses again. An error means that there is nothing to
// answer: it is no bounded dictionary, or lacks its kind or its transaction id. Bytes that follow the
// dictionary are ignored.
func (m *Message) Parse(p []byte) error {
	m.reset()
	if len(p) < minPacket || len(p) > MaxPacket || p[0] != 'd' {
		return errNoMessage
	}
	n, err := bencode.Scan(p, packet)
	if err != nil {
		return fmt.Errorf("krpc: %w", err)
	}
	var arguments, values, failure []byte
	for key, value := range bencode.Keys(p[:n]) {
		switch string(key) {
		case "y":
			if s := str(value); len(s) == 1 {
				m.Kind = Kind(s[0])
			}
		case "t":
			m.TID = str(value)
		case "q":
			m.Method = str(value)
		case "v":
			m.Version = str(value)
		case "ip":
			m.IP = parseEndpoint(str(value))
		case "ro":
			m.ReadOnly = flag(value)
		case "a":
			arguments = value
		case "r":
			values = value
		case "e":
			failure = value
		}
	}
	if m.TID == nil || len(m.TID) > maxTID {
		return errNoMessage
	}
	switch {
	case m.Kind == Query:
		m.IP = netip.AddrPort{}
		m.parseArguments(arguments)
	case m.Kind == Response:
		m.Method, m.ReadOnly = nil, false
		m.parseValues(values)
	case m.Kind == Failure:
		m.Method, m.ReadOnly = nil, false
		m.parseFailure(failure)
	default:
		return errNoMessage
	}
	return nil
}

// parseArguments reads the dictionary a, if there is one.
func (m *Message) parseArguments(p []byte) {
	if p == nil {
		return
	}
	var hash, target []byte
	for key, value := range bencode.Keys(p) {
		switch string(key) {
		case "id":
			m.setID(str(value))
		case "info_hash":
			hash = str(value)
		case "target":
			target = str(value)
		case "token":
			m.Token = str(value)
		case "port":
			m.Port = m.number(value, HasPort)
		case "implied_port":
			m.ImpliedPort = flag(value)
		case "seed":
			m.Seed = flag(value)
		case "noseed":
			m.NoSeed = flag(value)
		case "scrape":
			m.Scrape = flag(value)
		case "want":
			m.parseWant(value)
		case "v":
			m.Value = value
		case "k":
			m.Key = exactly(value, 32)
		case "sig":
			m.Sig = exactly(value, 64)
		case "salt":
			m.Salt = str(value)
		case "seq":
			m.Seq = m.number(value, HasSeq)
		case "cas":
			m.CAS = m.number(value, HasCAS)
		}
	}
	// A query that is not known here is taken for find_node if it has either (BEP 51).
	if m.wantsInfoHash() || len(target) != len(m.Target) && !known(m.Method) {
		target = hash
	}
	if id, ok := parseID(target); ok {
		m.Target, m.Has = id, m.Has|HasTarget
	}
}

// known reports whether a query is one of those above.
func known(method []byte) bool {
	switch string(method) {
	case Ping, FindNode, GetPeers, AnnouncePeer, Get, Put, SampleInfohashes:
		return true
	}
	return false
}

// parseValues reads the dictionary r, if there is one.
func (m *Message) parseValues(p []byte) {
	if p == nil {
		return
	}
	for key, value := range bencode.Keys(p) {
		switch string(key) {
		case "id":
			m.setID(str(value))
		case "nodes":
			if s, ok := bencode.String(value); ok {
				m.Nodes, m.Has = parseContacts(m.Nodes, s, 4), m.Has|HasNodes
			}
		case "nodes6":
			if s, ok := bencode.String(value); ok {
				m.Nodes6, m.Has = parseContacts(m.Nodes6, s, 16), m.Has|HasNodes6
			}
		case "values":
			m.parsePeers(value)
		case "token":
			m.Token = str(value)
		case "v":
			m.Value = value
		case "k":
			m.Key = exactly(value, 32)
		case "sig":
			m.Sig = exactly(value, 64)
		case "seq":
			m.Seq = m.number(value, HasSeq)
		case "BFsd":
			m.SeedFilter = exactly(value, 256)
		case "BFpe":
			m.PeerFilter = exactly(value, 256)
		case "samples":
			if s := str(value); s != nil {
				m.Samples = s[:len(s)-len(s)%len(ID{})]
			}
		case "interval":
			m.Interval = m.number(value, HasInterval)
		case "num":
			m.Num = m.number(value, HasNum)
		}
	}
}

// parseFailure reads the list e, if there is one.
func (m *Message) parseFailure(p []byte) {
	if p == nil {
		return
	}
	i := 0
	for value := range bencode.Elems(p) {
		switch i++; i {
		case 1:
			m.Code, _ = bencode.Int(value)
		case 2:
			m.Text = str(value)
		}
	}
}

func (m *Message) parseWant(p []byte) {
	if !bencode.IsList(p) {
		return
	}
	m.Has |= HasWant
	for value := range bencode.Elems(p) {
		switch string(str(value)) {
		case "n4":
			m.Want4 = true
		case "n6":
			m.Want6 = true
		}
	}
}

// parsePeers reads a list of peers, which may be of both families (BEP 32).
func (m *Message) parsePeers(p []byte) {
	for value := range bencode.Elems(p) {
		if len(m.Values) == maxValues {
			return
		}
		if peer := parseEndpoint(str(value)); peer.IsValid() {
			m.Values = append(m.Values, peer)
		}
	}
}

// parseContacts appends the first contacts of a compact list to nodes.
func parseContacts(nodes []Contact, p []byte, addrSize int) []Contact {
	n := len(ID{}) + addrSize + 2
	for ; len(p) >= n && len(nodes) < maxNodes; p = p[n:] {
		id, _ := parseID(p[:len(ID{})])
		nodes = append(nodes, Contact{id, parseEndpoint(p[len(ID{}):n])})
	}
	return nodes
}

// parseEndpoint is an address and a port in compact form, or the zero AddrPort if p is none. Whose they are
// is not known, and the port may be 0.
func parseEndpoint(p []byte) netip.AddrPort {
	if len(p) != 6 && len(p) != 18 {
		return netip.AddrPort{}
	}
	ip, _ := netip.AddrFromSlice(p[:len(p)-2])
	return netip.AddrPortFrom(ip, binary.BigEndian.Uint16(p[len(p)-2:]))
}

func (m *Message) setID(s []byte) {
	if id, ok := parseID(s); ok {
		m.ID, m.Has = id, m.Has|HasID
	}
}

// number is the integer that value holds, and records that it is there.
func (m *Message) number(value []byte, has Fields) int64 {
	v, ok := bencode.Int(value)
	if ok {
		m.Has |= has
	}
	return v
}

// flag reports whether value is an integer other than 0.
func flag(value []byte) bool {
	v, _ := bencode.Int(value)
	return v != 0
}

// str is the string that value holds, or nil.
func str(value []byte) []byte {
	s, _ := bencode.String(value)
	return s
}

// exactly is the string of n bytes that value holds, or nil.
func exactly(value []byte, n int) []byte {
	if s := str(value); len(s) == n {
		return s
	}
	return nil
}
