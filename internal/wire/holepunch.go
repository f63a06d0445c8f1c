package wire

import (
	"encoding/binary"
	"net/netip"
)

// Types of a HolePunch (BEP 55).
const (
	HolePunchRendezvous = 0 // to a relay: have the target and me connect to each other
	HolePunchConnect    = 1 // from a relay: connect to this address now
	HolePunchError      = 2 // from a relay: the rendezvous failed
)

// Why a rendezvous failed (BEP 55).
const (
	HolePunchNoSuchPeer   = 1 // the address cannot be a peer's
	HolePunchNotConnected = 2 // the relay has no connection to it
	HolePunchNoSupport    = 3 // it does not speak the extension
	HolePunchNoSelf       = 4 // it is the relay
)

// HolePunch is a message of ut_holepunch (BEP 55). Only the form of the address was checked.
type HolePunch struct {
	Type byte
	Addr netip.AddrPort // of the target in a rendezvous and an error, of the other end in a connect
	Code uint32         // of an error, else 0
}

// ParseHolePunch parses the payload of a ut_holepunch message. The code may be missing, since some senders leave it out
// unless it is an error. It reports false for what it cannot read.
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

// Append appends the payload to b, with a code in each message, as the BEP has it.
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
