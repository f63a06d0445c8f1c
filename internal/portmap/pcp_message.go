package portmap

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// A transport is what a port is of. Its value is that of the Internet Protocol.
type transport uint8

const (
	tcp transport = 6
	udp transport = 17
)

const (
	pcpVersion  = 2
	pcpAnnounce = 0
	pcpMap      = 1
	pcpAnswer   = 0x80 // set in the opcode of an answer

	pcpHeader    = 24
	pcpMapLength = pcpHeader + 36
	maxPCP       = 1100 // bytes of a message
)

// A nonce is what only the maker of a mapping knows, so that no other host changes it.
type nonce [12]byte

// A pcpMapping is the body of the opcode MAP (RFC 6887, 11.1), asked for or granted.
type pcpMapping struct {
	nonce     nonce
	transport transport
	internal  uint16
	external  uint16     // 0 in a request is any
	address   netip.Addr // outside; unspecified in a request is any
}

// appendPCPAnnounce appends the request that does nothing but have the server answer (RFC 6887, 14.1).
func appendPCPAnnounce(b []byte, client netip.Addr) []byte {
	return appendPCPHeader(b, pcpAnnounce, 0, client)
}

// appendPCPMap appends the request for a mapping; without a lifetime it deletes it.
func appendPCPMap(b []byte, client netip.Addr, life time.Duration, m pcpMapping) []byte {
	b = appendPCPHeader(b, pcpMap, life, client)
	b = append(b, m.nonce[:]...)
	b = append(b, byte(m.transport), 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, m.internal)
	b = binary.BigEndian.AppendUint16(b, m.external)
	address := m.address.As16()
	return append(b, address[:]...)
}

func appendPCPHeader(b []byte, opcode byte, life time.Duration, client netip.Addr) []byte {
	b = append(b, pcpVersion, opcode, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(life/time.Second))
	address := client.As16() // ::ffff:a.b.c.d of IPv4
	return append(b, address[:]...)
}

// A pcpResponse is a server's answer.
type pcpResponse struct {
	opcode byte // of the request
	result uint8
	life   time.Duration // of the mapping, or of the error
	epoch  uint32

	mapping pcpMapping // if mapped
	mapped  bool       // the body of MAP is there
}

// parsePCP reads an answer of version 2.
func parsePCP(b []byte) (r pcpResponse, ok bool) {
	if len(b) < pcpHeader || len(b) > maxPCP || len(b)%4 != 0 || b[0] != pcpVersion || b[1]&pcpAnswer == 0 {
		return r, false
	}
	r = pcpResponse{
		opcode: b[1] &^ pcpAnswer,
		result: b[3],
		life:   time.Duration(binary.BigEndian.Uint32(b[4:])) * time.Second,
		epoch:  binary.BigEndian.Uint32(b[8:]),
	}
	if r.opcode != pcpMap || len(b) < pcpMapLength {
		return r, r.opcode != pcpMap || r.result != 0
	}
	body := b[pcpHeader:]
	r.mapped = true
	r.mapping = pcpMapping{
		nonce:     nonce(body[:12]),
		transport: transport(body[12]),
		internal:  binary.BigEndian.Uint16(body[16:]),
		external:  binary.BigEndian.Uint16(body[18:]),
		address:   netip.AddrFrom16([16]byte(body[20:36])).Unmap(),
	}
	return r, true
}

// pcpResults are the reasons of a refusal (RFC 6887, 7.4).
var pcpResults = [...]string{
	1: "unsupported version", 2: "not authorized", 3: "malformed request", 4: "unsupported opcode",
	5: "unsupported option", 6: "malformed option", 7: "network failure", 8: "no resources",
	9: "unsupported protocol", 10: "quota exceeded", 11: "cannot provide external port",
	12: "address mismatch", 13: "excessive remote peers",
}
