package utp

import (
	"encoding/binary"
	"iter"
)

// packetType is what a packet is (BEP 29).
type packetType uint8

const (
	typeData packetType = iota
	typeFin
	typeState // an acknowledgement alone
	typeReset
	typeSyn
)

const (
	headerSize         = 20
	version            = 1
	extensionSelective = 1 // a selective acknowledgement
	extensionBits      = 2 // eight bytes of unknown meaning
	// extensionMore continues the selective acknowledgement before it, whose length is limited by its single length
	// byte. It is our own extension; other implementations skip it, and see the first part.
	extensionMore = 0x4d
	// extensionLargest says in two bytes how large a packet the sender takes, in a SYN and the answer to one,
	// and later how large one was that came. It is our own, too, and goes only where packets may be larger than Ethernet
	// carries. Extension bits stand before it, because some implementations accept a packet only if they know its first
	// extension.
	extensionLargest = 0x4c
	// maxMask is the largest multiple of 4 that a length byte holds.
	maxMask = 252
)

// header is the header of every packet.
type header struct {
	kind     packetType
	id       uint16 // of the connection, as its receiver knows it
	stamp    uint32 // the sender's clock in microseconds
	diff     uint32 // how much later than its stamp the sender got the last packet, by its own clock; 0 if it got none
	window   uint32 // bytes that the sender has room for
	seq, ack uint16
}

// put writes the header, followed by an extension of type ext, to the first 20 bytes of p.
func (h *header) put(p []byte, ext byte) {
	_ = p[headerSize-1]
	p[0] = byte(h.kind)<<4 | version
	p[1] = ext
	binary.BigEndian.PutUint16(p[2:], h.id)
	binary.BigEndian.PutUint32(p[4:], h.stamp)
	binary.BigEndian.PutUint32(p[8:], h.diff)
	binary.BigEndian.PutUint32(p[12:], h.window)
	binary.BigEndian.PutUint16(p[16:], h.seq)
	binary.BigEndian.PutUint16(p[18:], h.ack)
}

// extensions are the bytes between the header and the payload.
type extensions struct {
	kind byte // of the first, or 0
	p    []byte
}

// all are the extensions, each with its type.
func (e extensions) all() iter.Seq2[byte, []byte] {
	return func(yield func(byte, []byte) bool) {
		for kind, p := e.kind, e.p; kind != 0; kind, p = p[0], p[2+int(p[1]):] {
			if !yield(kind, p[2:2+int(p[1])]) {
				return
			}
		}
	}
}

// largest is how large a packet the sender takes, or has got, or 0 if it does not say.
func (e extensions) largest() uint16 {
	for kind, p := range e.all() {
		if kind == extensionLargest && len(p) == 2 {
			return binary.BigEndian.Uint16(p)
		}
	}
	return 0
}

// masks are the parts of a selective acknowledgement, each with the number of its first bit.
func (e extensions) masks() iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		bit := -1 // none yet
		for kind, mask := range e.all() {
			switch {
			case bit >= maxUnderway:
				return
			case kind == extensionSelective && bit < 0:
				bit = 0
			case kind == extensionMore && bit > 0:
			default:
				continue
			}
			if !yield(bit, mask) {
				return
			}
			bit += 8 * len(mask)
		}
	}
}

// packet is a parsed packet.
type packet struct {
	header
	ext     extensions
	payload []byte
}

// parse parses a packet. It reports whether b is one; if so, its extensions are well-formed.
func (p *packet) parse(b []byte) bool {
	if len(b) < headerSize || b[0]&0x0f != version || packetType(b[0]>>4) > typeSyn {
		return false
	}
	kinds, seqs := binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[12:])
	p.kind = packetType(b[0] >> 4)
	p.id = uint16(kinds >> 32)
	p.stamp = uint32(kinds)
	p.diff = binary.BigEndian.Uint32(b[8:])
	p.window = uint32(seqs >> 32)
	p.seq, p.ack = uint16(seqs>>16), uint16(seqs)
	kind := b[1]
	p.ext.kind, p.payload = kind, b[headerSize:]
	if kind == 0 {
		return true
	}
	p.ext.p = p.payload
	for kind != 0 {
		b = p.payload
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return false
		}
		kind, p.payload = b[0], b[2+int(b[1]):]
	}
	return true
}

// before reports whether sequence number a comes before b, on a circle of which they are less than half apart.
func before(a, b uint16) bool { return int16(a-b) < 0 }
