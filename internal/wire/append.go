package wire

import "encoding/binary"

// The functions here append one whole message each to b and return the longer slice.

// AppendKeepAlive appends a keep-alive, the message of no bytes.
func AppendKeepAlive(b []byte) []byte { return append(b, 0, 0, 0, 0) }

// AppendSimple appends a message that is only an id: choke, unchoke, interested, not interested,
// have all or have none.
func AppendSimple(b []byte, id ID) []byte { return header(b, id, 0) }

// AppendHave appends a have.
func AppendHave(b []byte, index uint32) []byte { return indexed(b, Have, index) }

// AppendSuggest appends a suggest (BEP 6).
func AppendSuggest(b []byte, index uint32) []byte { return indexed(b, Suggest, index) }

// AppendAllowedFast appends an allowed fast (BEP 6).
func AppendAllowedFast(b []byte, index uint32) []byte { return indexed(b, AllowedFast, index) }

// AppendBitfield appends a bitfield. bits is its wire form: the high bit of the first byte is piece 0.
func AppendBitfield(b, bits []byte) []byte { return append(header(b, Bitfield, len(bits)), bits...) }

// AppendRequest appends a request. begin and length are bytes within the piece.
func AppendRequest(b []byte, index, begin, length uint32) []byte {
	return block(b, Request, index, begin, length)
}

// AppendCancel appends a cancel of the request with the same numbers.
func AppendCancel(b []byte, index, begin, length uint32) []byte {
	return block(b, Cancel, index, begin, length)
}

// AppendReject appends a reject of the request with the same numbers (BEP 6).
func AppendReject(b []byte, index, begin, length uint32) []byte {
	return block(b, Reject, index, begin, length)
}

// AppendPieceHeader appends the 13 bytes in front of the payload of a piece message. length bytes of payload must
// follow on the stream.
func AppendPieceHeader(b []byte, index, begin, length uint32) []byte {
	b = header(b, Piece, 8+int(length))
	b = binary.BigEndian.AppendUint32(b, index)
	return binary.BigEndian.AppendUint32(b, begin)
}

// AppendPort appends a port (BEP 5).
func AppendPort(b []byte, port uint16) []byte {
	return binary.BigEndian.AppendUint16(header(b, Port, 2), port)
}

// AppendExtended appends a message of the extension protocol (BEP 10). extID is the number that the
// receiver gave to the extension in its own handshake, 0 being that handshake itself.
func AppendExtended(b []byte, extID byte, payload []byte) []byte {
	return append(append(header(b, Extended, 1+len(payload)), extID), payload...)
}

// header appends the length and the id of a message with n bytes behind the id.
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
