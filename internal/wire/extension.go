package wire

import (
	"encoding/binary"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/shoal-go/torrent/internal/bencode"
)

// dictionary has the bounds on the dictionary of an extension message.
var dictionary = bencode.Limits{Bytes: 1 << 20, Depth: 32, Values: 1 << 14}

const (
	maxExtensions = 256 // the number of extension ids
	maxClientName = 128 // bytes
)

// ExtHandshake is the handshake of the extension protocol (BEP 10), extended message 0. It may be sent again at any time, with
// only the fields that have changed. A field with the zero value is absent.
type ExtHandshake struct {
	// M maps each extension that the sender supports to the extension id of messages to the sender. Id 0 means that the
	// sender no longer supports the extension. If a name is missing, nothing has changed for that extension.
	M            map[string]int
	V            string // name and version of the client, unchecked, at most 128 bytes
	ReqQ         int    // how many outstanding requests the sender accepts
	P            int    // TCP port that the sender listens on
	YourIP       []byte // the receiver's address as the sender sees it, 4 or 16 bytes
	IPv4, IPv6   []byte // the sender's other addresses, 4 and 16 bytes
	MetadataSize int64  // length of the info dictionary in bytes (BEP 9), unchecked
	UploadOnly   *bool  // whether the sender downloads nothing (BEP 21); nil if absent
}

// ParseExtHandshake parses the payload of an extended message 0. It ignores entries that are malformed, of the wrong type or
// out of range, and if the payload is truncated, it returns the entries before the end: some clients make such mistakes, and
// have pieces all the same. The result does not refer to p.
func ParseExtHandshake(p []byte) ExtHandshake {
	var h ExtHandshake
	dict, _ := salvage(p)
	for key, value := range bencode.Keys(dict) {
		switch string(key) {
		case "m":
			h.M = parseNumbers(value)
		case "v":
			s, _ := bencode.String(value)
			h.V = string(s[:min(len(s), maxClientName)])
		case "reqq":
			h.ReqQ = int(natural(value, math.MaxInt32))
		case "p":
			h.P = int(natural(value, math.MaxUint16))
		case "yourip":
			if s, _ := bencode.String(value); len(s) == 4 || len(s) == 16 {
				h.YourIP = slices.Clone(s)
			}
		case "ipv4":
			if s, _ := bencode.String(value); len(s) == 4 {
				h.IPv4 = slices.Clone(s)
			}
		case "ipv6":
			if s, _ := bencode.String(value); len(s) == 16 {
				h.IPv6 = slices.Clone(s)
			}
		case "metadata_size":
			h.MetadataSize = natural(value, math.MaxInt64)
		case "upload_only":
			if n, ok := bencode.Int(value); ok && (n == 0 || n == 1) {
				h.UploadOnly = new(n != 0)
			}
		}
	}
	return h
}

// parseNumbers parses the value of the key m.
func parseNumbers(p []byte) map[string]int {
	m := make(map[string]int)
	for name, value := range bencode.Keys(p) {
		if id, ok := bencode.Int(value); ok && id >= 0 && id <= math.MaxUint8 && len(m) < maxExtensions {
			m[string(name)] = int(id)
		}
	}
	return m
}

// Append appends the dictionary of the handshake to b.
func (h *ExtHandshake) Append(b []byte) []byte {
	b = append(b, 'd')
	b = appendStringEntry(b, "ipv4", h.IPv4)
	b = appendStringEntry(b, "ipv6", h.IPv6)
	b = append(b, "1:md"...)
	for _, name := range slices.Sorted(maps.Keys(h.M)) {
		b = appendIntEntry(b, name, int64(h.M[name]))
	}
	b = append(b, 'e')
	for _, n := range []struct {
		key   string
		value int64
	}{{"metadata_size", h.MetadataSize}, {"p", int64(h.P)}, {"reqq", int64(h.ReqQ)}} {
		if n.value != 0 {
			b = appendIntEntry(b, n.key, n.value)
		}
	}
	if h.UploadOnly != nil {
		only := int64(0)
		if *h.UploadOnly {
			only = 1
		}
		b = appendIntEntry(b, "upload_only", only)
	}
	b = appendStringEntry(b, "v", h.V)
	b = appendStringEntry(b, "yourip", h.YourIP)
	return append(b, 'e')
}

// AppendDontHave appends an lt_donthave message (BEP 54): the sender no longer has the piece. extID is the number of the
// extension in the receiver's extension handshake.
func AppendDontHave(b []byte, extID byte, index uint32) []byte {
	b = append(header(b, Extended, 1+4), extID)
	return binary.BigEndian.AppendUint32(b, index)
}

// ParseDontHave parses the payload of an lt_donthave message (BEP 54) and returns the index of the piece.
func ParseDontHave(p []byte) (index uint32, err error) {
	if len(p) != 4 {
		return 0, violation("lt_donthave of %d bytes", len(p))
	}
	return binary.BigEndian.Uint32(p), nil
}

// salvage returns what can be read of the dictionary at the start of p, and the length of the dictionary in p. The length is
// 0 if the dictionary does not end in p.
func salvage(p []byte) (dict []byte, n int) {
	dict, n, _ = bencode.Salvage(p, dictionary)
	return dict, n
}

// natural returns the integer that value encodes if it is from 0 to most, else 0.
func natural(value []byte, most int64) int64 {
	if n, ok := bencode.Int(value); ok && n >= 0 && n <= most {
		return n
	}
	return 0
}

func appendString[S string | []byte](b []byte, s S) []byte {
	b = strconv.AppendInt(b, int64(len(s)), 10)
	return append(append(b, ':'), s...)
}

func appendIntEntry(b []byte, key string, v int64) []byte {
	b = strconv.AppendInt(append(appendString(b, key), 'i'), v, 10)
	return append(b, 'e')
}

// appendStringEntry appends an entry of a dictionary, or nothing if its value is empty.
func appendStringEntry[S string | []byte](b []byte, key string, value S) []byte {
	if len(value) == 0 {
		return b
	}
	return appendString(appendString(b, key), value)
}
