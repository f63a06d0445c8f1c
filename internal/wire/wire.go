// Package wire encodes and parses the peer protocol: the handshake and the messages of BEP 3, those of the Fast extension
// (BEP 6), of the extension protocol (BEP 10) with their dictionaries, and of version 2 (BEP 52).
//
// It appends messages to a buffer and reads them from a stream. It checks every length before it allocates. It has no state of a
// torrent: callers check whether an index is in range and a message allowed at that point. A Reader belongs to one goroutine;
// everything else may be used from any goroutine.
package wire

import (
	"fmt"
	"strconv"
)

// ID is the type of a message.
type ID byte

const (
	Choke         ID = 0
	Unchoke       ID = 1
	Interested    ID = 2
	NotInterested ID = 3
	Have          ID = 4
	Bitfield      ID = 5
	Request       ID = 6
	Piece         ID = 7
	Cancel        ID = 8
	Port          ID = 9    // BEP 5
	Suggest       ID = 0x0D // this and the next four: BEP 6
	HaveAll       ID = 0x0E
	HaveNone      ID = 0x0F
	Reject        ID = 0x10
	AllowedFast   ID = 0x11
	Extended      ID = 20 // BEP 10
	AskHashes     ID = 21 // hash request; this and the next two: BEP 52
	Hashes        ID = 22
	HashReject    ID = 23

	// KeepAlive stands for a message of length 0, which has no id on the wire. No known message has this id. If a peer sends
	// it, the message is ignored like any unknown one.
	KeepAlive ID = 0xFF
)

var names = [...]string{
	Choke: "choke", Unchoke: "unchoke", Interested: "interested", NotInterested: "not interested",
	Have: "have", Bitfield: "bitfield", Request: "request", Piece: "piece", Cancel: "cancel", Port: "port",
	Suggest: "suggest", HaveAll: "have all", HaveNone: "have none", Reject: "reject", AllowedFast: "allowed fast",
	Extended: "extended", AskHashes: "hash request", Hashes: "hashes", HashReject: "hash reject", KeepAlive: "keep-alive",
}

// String returns the name of the message.
func (id ID) String() string {
	if s := names[id]; s != "" {
		return s
	}
	return "message " + strconv.Itoa(int(id))
}

const (
	// MaxBlock is the greatest length of the block of a piece message, in bytes.
	MaxBlock = 128 << 10
	// maxUnknown is the greatest length of a message that is skipped, in bytes, including its id.
	maxUnknown = 1 << 20
)

// Message is one message. Which of its fields are set depends on ID:
//
//   - Have, Suggest, AllowedFast: Index
//   - Request, Cancel, Reject: Index, Begin, Length
//   - Piece: Index, Begin, and Length, the length of the block in bytes
//   - Port: Index is the port
//   - Bitfield: Payload
//   - Extended: ExtID, Payload
//   - AskHashes, Hashes, HashReject: Payload, for ParseHashRequest
type Message struct {
	ID                   ID
	ExtID                byte
	Index, Begin, Length uint32
	Payload              []byte // belongs to the Reader; valid until the next call of Next
}

// ProtocolError is a violation of the protocol by a peer. Nothing more can be read from that peer.
type ProtocolError struct {
	Reason string
}

func (e *ProtocolError) Error() string { return "wire: " + e.Reason }

func violation(format string, args ...any) error {
	return &ProtocolError{Reason: fmt.Sprintf(format, args...)}
}
