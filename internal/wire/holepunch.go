package wire

import (
	"encoding/binary"
	"net/netip"
)

// Types of a HolePunch (BEP 55).
const (
	HolePunchRendezvous = 0 // to a relay: make the target and the sender connect to each other
	HolePunchConnect    = 1 // from a relay: connect to the address now
	HolePunchError      = 2 // from a relay: the rendezvous failed
)

// Error codes of a HolePunch (BEP 55).
const (
	HolePunchNoSuchPeer   = 1 // the target's address is invalid
	HolePunchNotConnected = 2 // the relay has no connection to the target
	HolePunchNoSupport    = 3 // the target does not support the extension
	HolePunchNoSelf       = 4 // the target is the relay
)

// HolePunch is a message of ut_holepunch (BEP 55). Of the address only the form is checked.
type HolePunch struct {
	Type byte
	Addr netip.AddrPort // of the target in a rendezvous and an error, of the other end in a connect
	Code uint32         // of an error, else 0
}

// ParseHolePunch parses the payload of a ut_holepunch message. The code may be missing, because some senders leave it out
// unless the type is an error. ok is false if the payload is malformed.
func ParseHolePunch(p []byte) (m HolePunch, ok bool) {
	if len(p) < 2 {
		return m, false
	}
	size := 4
	if p[1] == 1 {
		size = 16
	}
	if p[1] > 1 || len(p) != 2+size+2 && len(p) != 2+size+2+4 {
		return m, false
	}
	ip, _ := netip.AddrFromSlice(p[2:][:size])
	m.Type, m.Addr = p[0], netip.AddrPortFrom(ip.Unmap(), binary.BigEndian.Uint16(p[2+size:]))
	if code := p[2+size+2:]; len(code) > 0 && m.Type == HolePunchError {
		m.Code = binary.BigEndian.Uint32(code)
	}
	return m, true
}

// Append appends the payload to b. It always includes the code, as BEP 55 requires.
func (m *HolePunch) Append(b []byte) []byte {
	ip := m.Addr.Addr().Unmap()
	kind := byte(1)
	if ip.Is4() {
		kind = 0
	}
	b = append(append(b, m.Type, kind), ip.AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, m.Addr.Port())
	return binary.BigEndian.AppendUint32(b, m.Code)
}
