// Package wire is the peer wire protocol as bytes: the handshake and the messages of BEP 3, the Fast
// extension's (BEP 6) and the extension protocol's (BEP 10) with the dictionaries that it carries.
//
// It appends messages to a buffer and reads them from a stream, with every length checked before
// anything is allocated. It knows nothing of a torrent: whether an index is in range, or a message
// was due, is for its caller to say.
package wire

import (
	"fmt"
	"strconv"
)

// ID is the byte that tells what kind of message follows.
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

	// KeepAlive stands for the message of no bytes, which has no id on the wire. No known message
	// has this id, so a peer that does send it is taken to say what any unknown message says: nothing.
	KeepAlive ID = 0xFF
)

var names = [...]string{
	Choke: "choke", Unchoke: "unchoke", Interested: "interested", NotInterested: "not interested",
	Have: "have", Bitfield: "bitfield", Request: "request", Piece: "piece", Cancel: "cancel", Port: "port",
	Suggest: "suggest", HaveAll: "have all", HaveNone: "have none", Reject: "reject", AllowedFast: "allowed fast",
	Extended: "extended", KeepAlive: "keep-alive",
}

// String is the protocol's name of the message.
func (id ID) String() string {
	if s := names[id]; s != "" {
		return s
	}
	return "message " + strconv.Itoa(int(id))
}

const (
	// MaxBlock is the longest payload in bytes that a piece message may have.
	MaxBlock = 128 << 10
	// maxUnknown is the longest message, in bytes and with its id, that is skipped if its id is unknown.
	maxUnknown = 1 << 20
)

// Message is one message of the stream. Which of its fields mean something depends on ID:
//
//   - Have, Suggest, AllowedFast: Index
//   - Request, Cancel, Reject: Index, Begin, Length
//   - Piece: Index, Begin, and Length, which is that of the payload in bytes
//   - Port: Index is the port
//   - Bitfield: Payload
//   - Extended: ExtID, Payload
type Message struct {
	ID                   ID
	ExtID                byte
	Index, Begin, Length uint32
	Payload              []byte // the Reader's: valid until its next call of Next
}

// ProtocolError is what a peer sent that the protocol does not allow. There is no way to go on
// reading from that peer.
type ProtocolError struct {
	Reason string
}

func (e *ProtocolError) Error() string { return "wire: " + e.Reason }

func violation(format string, args ...any) error {
	return &ProtocolError{Reason: fmt.Sprintf(format, args...)}
}
