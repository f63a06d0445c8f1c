package wire

import "encoding/binary"

// Each function in this file appends one whole message to b and returns the extended slice.

// AppendKeepAlive appends a keep-alive, a message of length 0.
func AppendKeepAlive(b []byte) []byte { return append(b, 0, 0, 0, 0) }

// AppendSimple appends a message without a payload: choke, unchoke, interested, not interested, have all or have none.
func AppendSimple(b []byte, id ID) []byte { return header(b, id, 0) }

// AppendHave appends a have.
func AppendHave(b []byte, index uint32) []byte { return indexed(b, Have, index) }

// AppendSuggest appends a suggest (BEP 6).
func AppendSuggest(b []byte, index uint32) []byte { return indexed(b, Suggest, index) }

// AppendAllowedFast appends an allowed fast (BEP 6).
func AppendAllowedFast(b []byte, index uint32) []byte { return indexed(b, AllowedFast, index) }

// AppendBitfield appends a bitfield. The high bit of the first byte of bits is piece 0.
func AppendBitfield(b, bits []byte) []byte { return append(header(b, Bitfield, len(bits)), bits...) }

// AppendRequest appends a request. begin, the offset in the piece, and length are in bytes.
func AppendRequest(b []byte, index, begin, length uint32) []byte {
	return block(b, Request, index, begin, length)
}

// AppendCancel appends a cancel of the request with the same index, begin and length.
func AppendCancel(b []byte, index, begin, length uint32) []byte {
	return block(b, Cancel, index, begin, length)
}

// AppendReject appends a reject (BEP 6) of the request with the same index, begin and length.
func AppendReject(b []byte, index, begin, length uint32) []byte {
	return block(b, Reject, index, begin, length)
}

// AppendPieceHeader appends the first 13 bytes of a piece message. A block of length bytes must follow on the stream.
func AppendPieceHeader(b []byte, index, begin, length uint32) []byte {
	b = header(b, Piece, 8+int(length))
	b = binary.BigEndian.AppendUint32(b, index)
	return binary.BigEndian.AppendUint32(b, begin)
}

// AppendPort appends a port message (BEP 5), which has the UDP port of the sender's DHT node.
func AppendPort(b []byte, port uint16) []byte {
	return binary.BigEndian.AppendUint16(header(b, Port, 2), port)
}

// AppendExtended appends a message of the extension protocol (BEP 10). extID is the number of the extension in the receiver's
// extension handshake, or 0 for the extension handshake itself.
func AppendExtended(b []byte, extID byte, payload []byte) []byte {
	return append(append(header(b, Extended, 1+len(payload)), extID), payload...)
}

// header appends the length prefix and the id of a message with n bytes after the id.
func header(b []byte, id ID, n int) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(1+n)), byte(id))
}

func indexed(b []byte, id ID, index uint32) []byte {
	return binary.BigEndian.AppendUint32(header(b, id, 4), index)
}

func block(b []byte, id ID, index, begin, length uint32) []byte {
	b = binary.BigEndian.AppendUint32(header(b, id, 12), index)
	b = binary.BigEndian.AppendUint32(b, begin)
	return binary.BigEndian.AppendUint32(b, length)
}
