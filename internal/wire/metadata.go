package wire

import (
	"math"

	"github.com/shoal-go/torrent/internal/bencode"
)

// MetadataBlock is the length in bytes of every piece of the metadata but the last (BEP 9).
const MetadataBlock = 16 << 10

// Types of a MetadataMessage. Receivers ignore others (BEP 9).
const (
	MetadataRequest = 0
	MetadataData    = 1
	MetadataReject  = 2

	metadataUnknown = -1
)

// MetadataMessage is a message of ut_metadata (BEP 9).
type MetadataMessage struct {
	Type      int
	Piece     int
	TotalSize int64  // of the metadata in bytes, unchecked; 0 if absent
	Data      []byte // of a MetadataData: the bytes after the dictionary
}

// ParseMetadataMessage parses the payload of a ut_metadata message. Data is a part of p, of any length. If the message is
// malformed, or lacks its type or its piece, the Type of the result is -1.
func ParseMetadataMessage(p []byte) MetadataMessage {
	m := MetadataMessage{Type: metadataUnknown, Piece: -1}
	dict, n := salvage(p)
	for key, value := range bencode.Keys(dict) {
		switch v, ok := bencode.Int(value); {
		case !ok || v < 0:
		case string(key) == "msg_type" && v <= math.MaxInt32:
			m.Type = int(v)
		case string(key) == "piece" && v <= math.MaxInt32:
			m.Piece = int(v)
		case string(key) == "total_size":
			m.TotalSize = v
		}
	}
	switch {
	case m.Type < 0, m.Piece < 0, m.Type == MetadataData && n == 0: // n is 0 if the start of the data is unknown
		return MetadataMessage{Type: metadataUnknown}
	case m.Type == MetadataData:
		m.Data = p[n:]
	}
	return m
}

// Append appends the dictionary of the message and its data to b.
func (m *MetadataMessage) Append(b []byte) []byte {
	b = appendIntEntry(append(b, 'd'), "msg_type", int64(m.Type))
	b = appendIntEntry(b, "piece", int64(m.Piece))
	if m.Type == MetadataData {
		b = appendIntEntry(b, "total_size", m.TotalSize)
	}
	return append(append(b, 'e'), m.Data...)
}
