package wire

// HandshakeSize is the length of a handshake in bytes (BEP 3).
const HandshakeSize = 1 + len(protocol) + 8 + 20 + 20

// HandshakeHead is the length in bytes of the part before the peer id. A peer that dials may wait for our handshake before it
// sends its peer id.
const HandshakeHead = HandshakeSize - 20

const protocol = "BitTorrent protocol"

// Handshake is the first message that each side sends (BEP 3).
type Handshake struct {
	Reserved         [8]byte // flags for the extensions that the sender supports
	InfoHash, PeerID [20]byte
}

// Append appends the bytes of the handshake to b.
func (h *Handshake) Append(b []byte) []byte {
	b = append(b, byte(len(protocol)))
	b = append(b, protocol...)
	b = append(b, h.Reserved[:]...)
	b = append(b, h.InfoHash[:]...)
	return append(b, h.PeerID[:]...)
}

// ParseHandshake parses p, which is a whole handshake or its first HandshakeHead bytes. In the second case PeerID is zero. If p
// has another length or names another protocol, the error is a *ProtocolError. The fields may have any value.
func ParseHandshake(p []byte) (Handshake, error) {
	var h Handshake
	if len(p) != HandshakeSize && len(p) != HandshakeHead {
		return h, violation("handshake of %d bytes", len(p))
	}
	if int(p[0]) != len(protocol) || string(p[1:1+len(protocol)]) != protocol {
		return h, violation("handshake of another protocol: %q", p[:1+len(protocol)])
	}
	p = p[1+len(protocol):]
	copy(h.Reserved[:], p)
	copy(h.InfoHash[:], p[8:])
	copy(h.PeerID[:], p[28:])
	return h, nil
}

// Fast reports whether the sender supports the Fast extension (BEP 6).
func (h *Handshake) Fast() bool { return h.Reserved[7]&0x04 != 0 }

// SetFast sets the flag for the Fast extension (BEP 6).
func (h *Handshake) SetFast() { h.Reserved[7] |= 0x04 }

// DHT reports whether the sender has a DHT node (BEP 5).
func (h *Handshake) DHT() bool { return h.Reserved[7]&0x01 != 0 }

// SetDHT sets the flag for the DHT (BEP 5).
func (h *Handshake) SetDHT() { h.Reserved[7] |= 0x01 }

// V2 reports whether the sender supports version 2 of the torrent (BEP 52). A handshake with the info hash of version 1 and this
// flag may be answered with that of version 2.
func (h *Handshake) V2() bool { return h.Reserved[7]&0x10 != 0 }

// SetV2 sets the flag for version 2 (BEP 52).
func (h *Handshake) SetV2() { h.Reserved[7] |= 0x10 }

// Extended reports whether the sender supports the extension protocol (BEP 10).
func (h *Handshake) Extended() bool { return h.Reserved[5]&0x10 != 0 }

// SetExtended sets the flag for the extension protocol (BEP 10).
func (h *Handshake) SetExtended() { h.Reserved[5] |= 0x10 }
