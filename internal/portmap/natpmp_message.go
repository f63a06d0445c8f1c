package portmap

import (
	"encoding/binary"
	"net/netip"
	"time"
)

const (
	natpmpVersion = 0
	natpmpAddress = 0 // asks for the external address
	natpmpMapUDP  = 1
	natpmpMapTCP  = 2
	natpmpAnswer  = 128

	natpmpUnsupportedVersion = 1
	natpmpNoNetwork          = 3 // the router has no address itself
)

// natpmpOpcode is the opcode that maps a port.
func natpmpOpcode(t transport) byte {
	if t == udp {
		return natpmpMapUDP
	}
	return natpmpMapTCP
}

// appendNATPMPAddress appends the request for the external address (RFC 6886, 3.2).
func appendNATPMPAddress(b []byte) []byte {
	return append(b, natpmpVersion, natpmpAddress)
}

// appendNATPMPMap appends the request for a mapping (RFC 6886, 3.3); without a lifetime it deletes it.
func appendNATPMPMap(b []byte, t transport, internal, external uint16, life time.Duration) []byte {
	b = append(b, natpmpVersion, natpmpOpcode(t), 0, 0)
	b = binary.BigEndian.AppendUint16(b, internal)
	b = binary.BigEndian.AppendUint16(b, external)
	return binary.BigEndian.AppendUint32(b, uint32(life/time.Second))
}

// A natpmpResponse is a router's answer.
type natpmpResponse struct {
	opcode byte // of the request
	result uint16
	epoch  uint32

	address            netip.Addr // to natpmpAddress, without an error
	internal, external uint16     // to a mapping
	life               time.Duration
}

// parseNATPMP reads an answer. One that reports an error may end behind the epoch, or before it where
// the version is what is not supported.
func parseNATPMP(b []byte) (r natpmpResponse, ok bool) {
	if len(b) < 4 || len(b) > maxPCP || b[0] != natpmpVersion || b[1] < natpmpAnswer {
		return r, false
	}
	r = natpmpResponse{opcode: b[1] - natpmpAnswer, result: binary.BigEndian.Uint16(b[2:])}
	if len(b) < 8 {
		return r, r.result == natpmpUnsupportedVersion
	}
	r.epoch = binary.BigEndian.Uint32(b[4:])
	switch body := b[8:]; {
	case r.opcode == natpmpAddress && len(body) >= 4:
		if r.result == 0 {
			r.address = netip.AddrFrom4([4]byte(body))
		}
	case (r.opcode == natpmpMapUDP || r.opcode == natpmpMapTCP) && len(body) >= 8:
		r.internal = binary.BigEndian.Uint16(body)
		r.external = binary.BigEndian.Uint16(body[2:])
		r.life = time.Duration(binary.BigEndian.Uint32(body[4:])) * time.Second
	default:
		return r, r.result != 0
	}
	return r, true
}

// natpmpResults are the reasons of a refusal (RFC 6886, 3.5).
var natpmpResults = [...]string{
	1: "unsupported version", 2: "not authorized", 3: "network failure", 4: "out of resources", 5: "unsupported opcode",
}
